"""The forward kernel: values and lse of a block of queries, over the runs of its mask."""

from typing import no_type_check

import triton
import triton.language as tl

from headscope.attention.paths.triton.score_block import LN2, LOG2E, finish, kept, load_rows, store_rows, visits

# What changes from call to call: a kernel that was compiled for one length, batch or mask runs every other.
SIZES = (
    *("sqb", "sqh", "sqm", "skb", "skh", "skn", "svb", "svh", "svn", "sob", "soh", "som"),
    *("srb", "srh", "srm", "shb", "shh", "shm"),
    *("heads", "share", "queries", "keys", "slots"),
)


@triton.jit
@no_type_check
def take(
    acc,
    total,
    peak,
    q,
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
    """Add a block of keys to the running values, sum and largest score of some queries.

    Source: the online softmax of Milakov & Gimelshein 2018, as in FlashAttention-2 (Dao 2023).
    """
    key = first + tl.arange(0, BLOCK_N)[None, :]
    k = load_rows(k_base, first, skn, keys, BLOCK_N, D, WIDTH_D, EDGE)
    product = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    scores, _ = finish(product, key, start, stop, bias_at, own, slope, keys, scale, softcap, EDGE, BIAS, SOFTCAP)
    highest = tl.maximum(peak, tl.max(scores, 1))
    # A query that has seen nothing yet: -inf - -inf would be NaN.
    shift = tl.where(highest == float("-inf"), 0.0, highest)
    weights = tl.exp2(scores - shift[:, None])
    fade = tl.exp2(peak - shift)
    total = total * fade + tl.sum(weights, 1)
    if DROPOUT:
        weights *= kept(seed, key, query, plane, dropout)
    v = load_rows(v_base, first, svn, keys, BLOCK_N, E, WIDTH_E, EDGE)
    acc = tl.dot(weights.to(v.dtype), v, acc * fade[:, None], input_precision=PRECISION)
    return acc, total, highest


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def forward(
    q_ptr,
    k_ptr,
    v_ptr,
    o_ptr,
    lse_ptr,
    start_ptr,
    stop_ptr,
    hull_ptr,
    bias_ptr,
    sinks_ptr,
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
    sob,
    soh,
    som,
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
    SINKS: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program for each block of queries of each head; strides are in units of ALIGN numbers."""
    blocks = tl.cdiv(queries, BLOCK_M)
    plane = tl.program_id(0) // blocks
    # The last queries of a causal mask have the most keys: they begin first.
    block = blocks - 1 - tl.program_id(0) % blocks
    item, head = (plane // heads).to(tl.int64), plane % heads
    group = head // share
    first = block * BLOCK_M
    rows = first + tl.arange(0, BLOCK_M)
    row = tl.minimum(rows, queries - 1)
    q = load_rows(q_ptr + (item * sqb + head * sqh) * ALIGN, first, sqm * ALIGN, queries, BLOCK_M, D, WIDTH_D, True)
    k_base = k_ptr + (item * skb + group * skh) * ALIGN
    v_base = v_ptr + (item * svb + group * svh) * ALIGN
    start_at = start_ptr + item * srb + head * srh + row * srm
    stop_at = stop_ptr + item * srb + head * srh + row * srm
    # Distances start at -(queries - 1): query i and key j stand at j - i + queries - 1.
    bias_at = (bias_ptr + head * (queries + keys - 1) + (queries - 1) - row)[:, None]
    own = (row + keys - queries)[:, None]
    slope = 0.0
    if BIAS == 2:
        slope = tl.load(bias_ptr + head).to(tl.float32)
    seed = tl.load(seed_ptr) if DROPOUT else 0
    acc = tl.zeros([BLOCK_M, WIDTH_E], tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    for slot in range(slots):
        low, count, full, last = visits(hull_ptr + item * shb + head * shh + block * shm + slot * 4, BLOCK_N)
        start = tl.load(start_at + slot, mask=rows < queries, other=0)[:, None]
        stop = tl.load(stop_at + slot, mask=rows < queries, other=0)[:, None]
        for n in range(full, last):
            acc, total, peak = take(
                acc, total, peak, q, k_base, v_base, low + n * BLOCK_N, skn * ALIGN, svn * ALIGN, start, stop, bias_at,
                own, slope, keys, scale, softcap, seed, row[:, None], plane, dropout,
                D, E, WIDTH_D, WIDTH_E, BLOCK_N, False, BIAS, SOFTCAP, DROPOUT, PRECISION,
            )  # fmt: skip
        # The blocks before and after those without a mask, in one loop.
        for edge in range(full + count - last):
            n = tl.where(edge < full, edge, edge + last - full)
            acc, total, peak = take(
                acc, total, peak, q, k_base, v_base, low + n * BLOCK_N, skn * ALIGN, svn * ALIGN, start, stop, bias_at,
                own, slope, keys, scale, softcap, seed, row[:, None], plane, dropout,
                D, E, WIDTH_D, WIDTH_E, BLOCK_N, True, BIAS, SOFTCAP, DROPOUT, PRECISION,
            )  # fmt: skip
    if SINKS:
        # One more logit, without a value.
        sink = tl.load(sinks_ptr + head).to(tl.float32) * LOG2E
        highest = tl.maximum(peak, sink)
        shift = tl.where(highest == float("-inf"), 0.0, highest)
        fade = tl.exp2(peak - shift)
        total, acc, peak = total * fade + tl.exp2(sink - shift), acc * fade[:, None], highest
    seen = total > 0
    lse = tl.where(seen, (peak + tl.log2(tl.where(seen, total, 1.0))) * LN2, float("-inf"))
    tl.store(lse_ptr + tl.cast(plane, tl.int64) * queries + rows, lse, mask=rows < queries)
    values = acc / tl.where(seen, total, 1.0)[:, None]
    store_rows(o_ptr + (item * sob + head * soh) * ALIGN, first, som * ALIGN, queries, values, BLOCK_M, E, WIDTH_E)
