"""The backward kernel of the keys and values: their gradients, from the queries whose runs hold them.

One program adds up each gradient in a fixed order: no atomics, so that two runs give the same bits.

Source: FlashAttention-2 (Dao 2023), algorithm 2.
"""

from typing import no_type_check

import triton
import triton.language as tl

from headscope.attention.paths.triton.score_block import load_rows, store_rows
from headscope.attention.paths.triton.score_gradient import BACKWARD_SIZES, row_lse, row_numbers, slopes_of


@triton.jit
@no_type_check
def visitors(hull, stride, blocks, first, last, BLOCK_N: tl.constexpr, SEARCH: tl.constexpr):
    """The blocks of queries that visit the keys `first … last - 1` in one slot: first, end, and those without a mask.

    The other side of the hulls, found by reading them all, SEARCH at a time: N/64 numbers for each block of keys. Those
    without a mask are the first stretch of blocks whose queries all see all these keys.
    """
    begin, end, full = blocks, 0, blocks
    for base in range(0, blocks, SEARCH):
        block = base + tl.arange(0, SEARCH)
        at, there = hull + block * stride, block < blocks
        low, high = tl.load(at, mask=there, other=0), tl.load(at + 1, mask=there, other=0)
        meets = (low < last) & (high > first) & (low < high)
        begin = tl.minimum(begin, tl.min(tl.where(meets, block, blocks), 0))
        end = tl.maximum(end, tl.max(tl.where(meets, block + 1, 0), 0))
        low, high = tl.load(at + 2, mask=there, other=last), tl.load(at + 3, mask=there, other=0)
        seen = (low <= first) & (high >= first + BLOCK_N)
        full = tl.minimum(full, tl.min(tl.where(seen, block, blocks), 0))
    stop = blocks
    for base in range(0, blocks, SEARCH):
        block = base + tl.arange(0, SEARCH)
        at, there = hull + block * stride, block < blocks
        low, high = tl.load(at + 2, mask=there, other=last), tl.load(at + 3, mask=there, other=0)
        seen = (low <= first) & (high >= first + BLOCK_N)
        stop = tl.minimum(stop, tl.min(tl.where((block > full) & ~seen, block, blocks), 0))
    full = tl.minimum(tl.maximum(full, begin), tl.maximum(end, begin))
    return begin, tl.maximum(end, begin), full, tl.maximum(tl.minimum(stop, end), full)


@triton.jit
@no_type_check
def take_queries(
    dk,
    dv,
    k,
    v,
    key,
    q_base,
    grad_base,
    start_row,
    stop_row,
    bias_ptr,
    lse_ptr,
    drawn_ptr,
    first,
    sqm,
    sgm,
    srm,
    head,
    plane,
    queries,
    keys,
    scale,
    softcap,
    slope,
    seed,
    dropout,
    D: tl.constexpr,
    E: tl.constexpr,
    WIDTH_D: tl.constexpr,
    WIDTH_E: tl.constexpr,
    BLOCK_M: tl.constexpr,
    EDGE: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTCAP: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add what a block of queries asks of the keys and values; pairs are (keys, queries) here."""
    rows = first + tl.arange(0, BLOCK_M)
    row = tl.minimum(rows, queries - 1)
    start, stop = row[None, :], row[None, :]
    if EDGE:
        start = tl.load(start_row + row * srm, mask=rows < queries, other=0)[None, :]
        stop = tl.load(stop_row + row * srm, mask=rows < queries, other=0)[None, :]
    lse = row_lse(lse_ptr, plane, rows, queries)[None, :]
    drawn = row_numbers(drawn_ptr, plane, rows, queries, 0.0)[None, :]
    bias_at = (bias_ptr + head * (queries + keys - 1) + (queries - 1) - row)[None, :]
    q = load_rows(q_base, first, sqm, queries, BLOCK_M, D, WIDTH_D, True)
    grad = load_rows(grad_base, first, sgm, queries, BLOCK_M, E, WIDTH_E, True)
    product = tl.dot(k, tl.trans(q), input_precision=PRECISION)
    of_values = tl.dot(v, tl.trans(grad), input_precision=PRECISION)
    weights, _, inner = slopes_of(
        product, of_values, key, row[None, :], start, stop, bias_at, (row + keys - queries)[None, :], slope, lse,
        drawn, keys, scale, softcap, seed, plane, dropout, EDGE, BIAS, SOFTCAP, DROPOUT,
    )  # fmt: skip
    dv = tl.dot(weights.to(grad.dtype), grad, dv, input_precision=PRECISION)
    dk = tl.dot(inner.to(q.dtype), q, dk, input_precision=PRECISION)
    return dk, dv


@triton.jit(do_not_specialize=BACKWARD_SIZES)
@no_type_check
def keys_gradient(
    q_ptr,
    k_ptr,
    v_ptr,
    grad_ptr,
    lse_ptr,
    drawn_ptr,
    dk_ptr,
    dv_ptr,
    start_ptr,
    stop_ptr,
    hull_ptr,
    bias_ptr,
    seed_ptr,
    sqb,
    sqh,
    sqm,
    skb,
    skh,
    skn,
    svb,
    svh,
    svn,
    sgb,
    sgh,
    sgm,
    srb,
    srh,
    srm,
    shb,
    shh,
    shm,
    heads,
    share,
    queries,
    keys,
    slots,
    scale,
    softcap,
    dropout,
    D: tl.constexpr,
    E: tl.constexpr,
    WIDTH_D: tl.constexpr,
    WIDTH_E: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ALIGN: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTCAP: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    SEARCH: tl.constexpr,
):
    """One program for each block of keys of each group: over the query heads of the group and the queries that see it.

    dk and dv are contiguous.
    """
    groups = heads // share
    key_blocks = tl.cdiv(keys, BLOCK_N)
    plane_of_group, first = tl.program_id(0) // key_blocks, tl.program_id(0) % key_blocks * BLOCK_N
    item, group = (plane_of_group // groups).to(tl.int64), plane_of_group % groups
    last = tl.minimum(first + BLOCK_N, keys)
    key = (first + tl.arange(0, BLOCK_N))[:, None]
    k = load_rows(k_ptr + (item * skb + group * skh) * ALIGN, first, skn * ALIGN, keys, BLOCK_N, D, WIDTH_D, True)
    v = load_rows(v_ptr + (item * svb + group * svh) * ALIGN, first, svn * ALIGN, keys, BLOCK_N, E, WIDTH_E, True)
    seed = tl.load(seed_ptr) if DROPOUT else 0
    dk = tl.zeros([BLOCK_N, WIDTH_D], tl.float32)
    dv = tl.zeros([BLOCK_N, WIDTH_E], tl.float32)
    blocks = tl.cdiv(queries, BLOCK_M)
    for member in range(share):
        head = group * share + member
        plane = (item * heads + head).to(tl.int32)
        slope = 0.0
        if BIAS == 2:
            slope = tl.load(bias_ptr + head).to(tl.float32)
        q_base = q_ptr + (item * sqb + head * sqh) * ALIGN
        grad_base = grad_ptr + (item * sgb + head * sgh) * ALIGN
        for slot in range(slots):
            hull = hull_ptr + item * shb + head * shh + slot * 4
            begin, end, full, full_end = visitors(hull, shm, blocks, first, last, BLOCK_N, SEARCH)
            start_row = start_ptr + item * srb + head * srh + slot
            stop_row = stop_ptr + item * srb + head * srh + slot
            for block in range(full, full_end):
                dk, dv = take_queries(
                    dk, dv, k, v, key, q_base, grad_base, start_row, stop_row, bias_ptr, lse_ptr, drawn_ptr,
                    block * BLOCK_M, sqm * ALIGN, sgm * ALIGN, srm, head, plane, queries, keys, scale, softcap, slope,
                    seed, dropout, D, E, WIDTH_D, WIDTH_E, BLOCK_M, False, BIAS, SOFTCAP, DROPOUT, PRECISION,
                )  # fmt: skip
            for edge in range(begin, end - (full_end - full)):
                block = tl.where(edge < full, edge, edge + full_end - full)
                dk, dv = take_queries(
                    dk, dv, k, v, key, q_base, grad_base, start_row, stop_row, bias_ptr, lse_ptr, drawn_ptr,
                    block * BLOCK_M, sqm * ALIGN, sgm * ALIGN, srm, head, plane, queries, keys, scale, softcap, slope,
                    seed, dropout, D, E, WIDTH_D, WIDTH_E, BLOCK_M, True, BIAS, SOFTCAP, DROPOUT, PRECISION,
                )  # fmt: skip
    at = tl.cast(plane_of_group, tl.int64) * keys
    store_rows(dk_ptr + at * D, first, D, keys, dk * scale, BLOCK_N, D, WIDTH_D)
    store_rows(dv_ptr + at * E, first, E, keys, dv, BLOCK_N, E, WIDTH_E)
