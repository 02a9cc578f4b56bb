"""The backward kernel of the queries: their gradient over the runs of the mask, and the gradient of a slope.

One program adds up each gradient in a fixed order: no atomics, so that two runs give the same bits.

Source: FlashAttention-2 (Dao 2023), algorithm 2.
"""

from typing import no_type_check

import triton
import triton.language as tl

from headscope.attention.paths.triton.score_block import load_rows, store_rows, visits
from headscope.attention.paths.triton.score_gradient import BACKWARD_SIZES, row_lse, row_numbers, slopes_of


@triton.jit
@no_type_check
def take_keys(
    acc,
    slant,
    q,
    grad,
    k_base,
    v_base,
    first,
    skn,
    svn,
    start,
    stop,
    bias_at,
    own,
    slope,
    lse,
    drawn,
    keys,
    scale,
    softcap,
    seed,
    query,
    plane,
    dropout,
    D: tl.constexpr,
    E: tl.constexpr,
    WIDTH_D: tl.constexpr,
    WIDTH_E: tl.constexpr,
    BLOCK_N: tl.constexpr,
    EDGE: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTCAP: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add what a block of keys asks of the queries, and of the slope of their bias."""
    key = first + tl.arange(0, BLOCK_N)[None, :]
    k = load_rows(k_base, first, skn, keys, BLOCK_N, D, WIDTH_D, EDGE)
    v = load_rows(v_base, first, svn, keys, BLOCK_N, E, WIDTH_E, EDGE)
    product = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    of_values = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
    _, gradient, inner = slopes_of(
        product, of_values, key, query, start, stop, bias_at, own, slope, lse, drawn, keys, scale, softcap, seed,
        plane, dropout, EDGE, BIAS, SOFTCAP, DROPOUT,
    )  # fmt: skip
    if BIAS == 2:
        slant -= tl.sum(gradient * tl.abs(key - own).to(tl.float32), 1)
    return tl.dot(inner.to(k.dtype), k, acc, input_precision=PRECISION), slant


@triton.jit(do_not_specialize=BACKWARD_SIZES)
@no_type_check
def queries_gradient(
    q_ptr,
    k_ptr,
    v_ptr,
    grad_ptr,
    lse_ptr,
    drawn_ptr,
    dq_ptr,
    slant_ptr,
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
    sdb,
    sdh,
    sdm,
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
):
    """One program for each block of queries of each head, as in the forward; also the gradient of a slope, in parts."""
    blocks = tl.cdiv(queries, BLOCK_M)
    plane = tl.program_id(0) // blocks
    block = blocks - 1 - tl.program_id(0) % blocks
    item, head = (plane // heads).to(tl.int64), plane % heads
    group = head // share
    first = block * BLOCK_M
    rows = first + tl.arange(0, BLOCK_M)
    row = tl.minimum(rows, queries - 1)
    q = load_rows(q_ptr + (item * sqb + head * sqh) * ALIGN, first, sqm * ALIGN, queries, BLOCK_M, D, WIDTH_D, True)
    grad = load_rows(
        grad_ptr + (item * sgb + head * sgh) * ALIGN, first, sgm * ALIGN, queries, BLOCK_M, E, WIDTH_E, True
    )
    k_base = k_ptr + (item * skb + group * skh) * ALIGN
    v_base = v_ptr + (item * svb + group * svh) * ALIGN
    start_at = start_ptr + item * srb + head * srh + row * srm
    stop_at = stop_ptr + item * srb + head * srh + row * srm
    bias_at = (bias_ptr + head * (queries + keys - 1) + (queries - 1) - row)[:, None]
    own = (row + keys - queries)[:, None]
    slope = 0.0
    if BIAS == 2:
        slope = tl.load(bias_ptr + head).to(tl.float32)
    seed = tl.load(seed_ptr) if DROPOUT else 0
    lse = row_lse(lse_ptr, plane, rows, queries)[:, None]
    drawn = row_numbers(drawn_ptr, plane, rows, queries, 0.0)[:, None]
    acc = tl.zeros([BLOCK_M, WIDTH_D], tl.float32)
    slant = tl.zeros([BLOCK_M], tl.float32)
    for slot in range(slots):
        low, count, full, last = visits(hull_ptr + item * shb + head * shh + block * shm + slot * 4, BLOCK_N)
        start = tl.load(start_at + slot, mask=rows < queries, other=0)[:, None]
        stop = tl.load(stop_at + slot, mask=rows < queries, other=0)[:, None]
        for n in range(full, last):
            acc, slant = take_keys(
                acc, slant, q, grad, k_base, v_base, low + n * BLOCK_N, skn * ALIGN, svn * ALIGN, start, stop, bias_at,
                own, slope, lse, drawn, keys, scale, softcap, seed, row[:, None], plane, dropout,
                D, E, WIDTH_D, WIDTH_E, BLOCK_N, False, BIAS, SOFTCAP, DROPOUT, PRECISION,
            )  # fmt: skip
        for edge in range(full + count - last):
            n = tl.where(edge < full, edge, edge + last - full)
            acc, slant = take_keys(
                acc, slant, q, grad, k_base, v_base, low + n * BLOCK_N, skn * ALIGN, svn * ALIGN, start, stop, bias_at,
                own, slope, lse, drawn, keys, scale, softcap, seed, row[:, None], plane, dropout,
                D, E, WIDTH_D, WIDTH_E, BLOCK_N, True, BIAS, SOFTCAP, DROPOUT, PRECISION,
            )  # fmt: skip
    store_rows(
        dq_ptr + (item * sdb + head * sdh) * ALIGN, first, sdm * ALIGN, queries, acc * scale, BLOCK_M, D, WIDTH_D
    )
    if BIAS == 2:
        tl.store(slant_ptr + tl.cast(plane, tl.int64) * blocks + block, tl.sum(tl.where(rows < queries, slant, 0.0), 0))
