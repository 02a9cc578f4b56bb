"""Every statistic of the weights of an attention call in one pass over its scores, on a GPU.

The lse of each query is known, so that a weight is `exp(score - lse)` at once, and blocks that the runs of the mask
leave out are never visited. Sums over the queries are gathered from many programs as integers (units of 2⁻⁴⁰), whose
sum does not depend on an order: two runs give the same bits.
"""

# Triton reads the source of these functions: mypy and the shape checks of the tests leave them alone (no_type_check).
from typing import no_type_check

import triton
import triton.language as tl

from headscope.attention.paths.triton.score_block import LN2, LOG2E, finish, load_rows, visits

SIZES = (
    *("sqb", "sqh", "sqm", "skb", "skh", "skn", "srb", "srh", "srm", "shb", "shh", "shm"),
    *("heads", "share", "queries", "keys", "slots", "height", "width", "columns"),
)
# One weight of 1 as an integer: 2²⁰ queries still fit into 63 bits.
UNIT = tl.constexpr(1099511627776.0)
# How many of the largest scores of a query are kept.
LISTED = tl.constexpr(16)


@triton.jit
@no_type_check
def list_largest(scores, key, listed, names, BLOCK_M: tl.constexpr):
    """Put the largest scores of a block into the lists of their queries, as long as there is one that belongs there.

    Most blocks have none: after some blocks only a few scores are among the largest.
    """
    place = tl.arange(0, LISTED)[None, :]
    best = tl.max(scores, 1)
    least = tl.min(listed, 1)
    while tl.max((best > least).to(tl.int32), 0) > 0:
        at = tl.argmax(scores, 1)
        out = tl.argmin(listed, 1)
        enters = (best > least)[:, None] & (place == out[:, None])
        mine = key == tl.min(key, 1)[:, None] + at[:, None]
        listed = tl.where(enters, best[:, None], listed)
        names = tl.where(enters, tl.sum(tl.where(mine, key, 0), 1)[:, None], names)
        scores = tl.where(mine, float("-inf"), scores)
        best = tl.max(scores, 1)
        least = tl.min(listed, 1)
    return listed, names


@triton.jit
@no_type_check
def add_cells(
    weights, mean_at, most_at, rows, key, queries, keys, first, last_row, height, width, columns, BLOCK_N: tl.constexpr
):
    """Add a block of weights to the cells of both maps that it has a part of."""
    for cell in range(first // height, last_row // height + 1):
        inside = (rows // height == cell)[:, None] & (rows < queries)[:, None]
        sums = tl.sum(tl.where(inside, weights, 0.0), 0)
        most = tl.max(tl.where(inside, weights, 0.0), 0)
        column = key // width
        left = tl.min(column, 0)
        right = tl.minimum(tl.max(column, 0), columns - 1)
        base = tl.cast(cell, tl.int64) * columns
        if right - left <= 1:
            # Wide cells: at most two of them, each one number.
            for one in range(left, right + 1):
                part = tl.sum(tl.where(column == one, sums, 0.0), 0)
                tl.atomic_add(mean_at + base + one, (part * UNIT).to(tl.int64), sem="relaxed")
                part = tl.max(tl.where(column == one, most, 0.0), 0)
                tl.atomic_max(most_at + base + one, part.to(tl.int32, bitcast=True), sem="relaxed")
        else:
            real = (key < keys) & (sums > 0)
            tl.atomic_add(mean_at + base + column, (sums * UNIT).to(tl.int64), mask=real, sem="relaxed")
            tl.atomic_max(most_at + base + column, most.to(tl.int32, bitcast=True), mask=real, sem="relaxed")


@triton.jit
@no_type_check
def see(
    entropy,
    square,
    peak,
    listed,
    names,
    q,
    k_base,
    first,
    skn,
    start,
    stop,
    bias_at,
    own,
    slope,
    lse,
    keys,
    scale,
    softcap,
    received_at,
    left_out_ptr,
    mean_at,
    most_at,
    rows,
    queries,
    first_row,
    last_row,
    height,
    width,
    columns,
    D: tl.constexpr,
    WIDTH_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    EDGE: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTCAP: tl.constexpr,
    RECEIVED: tl.constexpr,
    MAPS: tl.constexpr,
    TOP: tl.constexpr,
    LEFT_OUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Everything of one block of keys."""
    key = first + tl.arange(0, BLOCK_N)
    k = load_rows(k_base, first, skn, keys, BLOCK_N, D, WIDTH_D, EDGE)
    product = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    scores, _ = finish(
        product, key[None, :], start, stop, bias_at, own, slope, keys, scale, softcap, EDGE, BIAS, SOFTCAP
    )
    # Relative to the lse, in units of log 2; what nobody sees counts for nothing.
    logs = scores - lse
    weights = tl.exp2(logs)
    entropy -= tl.sum(tl.where(weights > 0, weights * logs, 0.0), 1)
    square += tl.sum(weights * weights, 1)
    if LEFT_OUT:
        out = tl.load(left_out_ptr + key, mask=key < keys, other=1)[None, :]
        peak = tl.maximum(peak, tl.max(tl.where(out != 0, 0.0, weights), 1))
    else:
        peak = tl.maximum(peak, tl.max(weights, 1))
    if RECEIVED:
        sums = (tl.sum(weights, 0) * UNIT).to(tl.int64)
        tl.atomic_add(received_at + key, sums, mask=(key < keys) & (sums > 0), sem="relaxed")
    if MAPS:
        add_cells(
            weights, mean_at, most_at, rows, key, queries, keys, first_row, last_row, height, width, columns, BLOCK_N
        )
    if TOP:
        scores = tl.where((rows < queries)[:, None], scores, float("-inf"))
        listed, names = list_largest(scores, key[None, :], listed, names, BLOCK_M)
    return entropy, square, peak, listed, names


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def look(
    q_ptr,
    k_ptr,
    lse_ptr,
    entropy_ptr,
    square_ptr,
    peak_ptr,
    received_ptr,
    mean_ptr,
    most_ptr,
    listed_ptr,
    names_ptr,
    start_ptr,
    stop_ptr,
    hull_ptr,
    bias_ptr,
    left_out_ptr,
    sqb,
    sqh,
    sqm,
    skb,
    skh,
    skn,
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
    height,
    width,
    columns,
    scale,
    softcap,
    D: tl.constexpr,
    WIDTH_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ALIGN: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTCAP: tl.constexpr,
    RECEIVED: tl.constexpr,
    MAPS: tl.constexpr,
    TOP: tl.constexpr,
    LEFT_OUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program for each block of queries of each head, over the hulls of its runs."""
    blocks = tl.cdiv(queries, BLOCK_M)
    plane = tl.program_id(0) // blocks
    block = blocks - 1 - tl.program_id(0) % blocks
    item, head = (plane // heads).to(tl.int64), plane % heads
    group = head // share
    first = block * BLOCK_M
    rows = first + tl.arange(0, BLOCK_M)
    row = tl.minimum(rows, queries - 1)
    last_row = tl.minimum(first + BLOCK_M, queries) - 1
    q = load_rows(q_ptr + (item * sqb + head * sqh) * ALIGN, first, sqm * ALIGN, queries, BLOCK_M, D, WIDTH_D, True)
    k_base = k_ptr + (item * skb + group * skh) * ALIGN
    runs = item * srb + head * srh + row * srm
    bias_at = (bias_ptr + head * (queries + keys - 1) + (queries - 1) - row)[:, None]
    own = (row + keys - queries)[:, None]
    slope = 0.0
    if BIAS == 2:
        slope = tl.load(bias_ptr + head).to(tl.float32)
    plane = plane.to(tl.int64)
    # Plus infinity for rows without a key, and past the last query: their weights are 0.
    lse = tl.load(lse_ptr + plane * queries + rows, mask=rows < queries, other=float("inf"))
    lse = tl.where(lse == float("-inf"), float("inf"), lse * LOG2E)[:, None]
    cells = plane * tl.cdiv(queries, height) * columns
    entropy = tl.zeros([BLOCK_M], tl.float32)
    square = tl.zeros([BLOCK_M], tl.float32)
    peak = tl.zeros([BLOCK_M], tl.float32)
    listed = tl.full([BLOCK_M, LISTED], float("-inf"), tl.float32)
    names = tl.full([BLOCK_M, LISTED], -1, tl.int32)
    for slot in range(slots):
        low, count, full, last = visits(hull_ptr + item * shb + head * shh + block * shm + slot * 4, BLOCK_N)
        start = tl.load(start_ptr + runs + slot, mask=rows < queries, other=0)[:, None]
        stop = tl.load(stop_ptr + runs + slot, mask=rows < queries, other=0)[:, None]
        for n in range(full, last):
            entropy, square, peak, listed, names = see(
                entropy, square, peak, listed, names, q, k_base, low + n * BLOCK_N, skn * ALIGN, start, stop, bias_at,
                own, slope, lse, keys, scale, softcap, received_ptr + plane * keys, left_out_ptr, mean_ptr + cells,
                most_ptr + cells, rows, queries, first, last_row, height, width, columns, D, WIDTH_D, BLOCK_M, BLOCK_N,
                False, BIAS, SOFTCAP, RECEIVED, MAPS, TOP, LEFT_OUT, PRECISION,
            )  # fmt: skip
        for edge in range(full + count - last):
            n = tl.where(edge < full, edge, edge + last - full)
            entropy, square, peak, listed, names = see(
                entropy, square, peak, listed, names, q, k_base, low + n * BLOCK_N, skn * ALIGN, start, stop, bias_at,
                own, slope, lse, keys, scale, softcap, received_ptr + plane * keys, left_out_ptr, mean_ptr + cells,
                most_ptr + cells, rows, queries, first, last_row, height, width, columns, D, WIDTH_D, BLOCK_M, BLOCK_N,
                True, BIAS, SOFTCAP, RECEIVED, MAPS, TOP, LEFT_OUT, PRECISION,
            )  # fmt: skip
    at = plane * queries + rows
    tl.store(entropy_ptr + at, entropy * LN2, mask=rows < queries)
    tl.store(square_ptr + at, square, mask=rows < queries)
    tl.store(peak_ptr + at, peak, mask=rows < queries)
    if TOP:
        place = at[:, None] * LISTED + tl.arange(0, LISTED)[None, :]
        tl.store(listed_ptr + place, listed, mask=(rows < queries)[:, None])
        tl.store(names_ptr + place, names, mask=(rows < queries)[:, None])
