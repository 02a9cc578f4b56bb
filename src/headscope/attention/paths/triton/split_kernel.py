"""Decoding: a few queries against many keys, split over the keys so that the whole GPU reads them, and merged.

All query heads that share a key are rows of one block, so that every key is read once.

Source: Flash-Decoding (Dao, Haziza, Massa & Sizov 2023); the merge is that of `attention/merge.py`.
"""

from typing import no_type_check

import triton
import triton.language as tl

from headscope.attention.paths.triton.forward_kernel import take
from headscope.attention.paths.triton.score_block import LN2, LOG2E

SPLIT_SIZES = (
    *("sqb", "sqh", "sqm", "skb", "skh", "skn", "svb", "svh", "svn", "srb", "srh", "srm"),
    *("heads", "share", "queries", "keys", "slots", "chunk", "splits"),
)


@triton.jit(do_not_specialize=SPLIT_SIZES)
@no_type_check
def split(
    q_ptr,
    k_ptr,
    v_ptr,
    part_ptr,
    part_lse_ptr,
    start_ptr,
    stop_ptr,
    bias_ptr,
    sqb,
    sqh,
    sqm,
    skb,
    skh,
    skn,
    svb,
    svh,
    svn,
    srb,
    srh,
    srm,
    heads,
    share,
    queries,
    keys,
    slots,
    chunk,
    splits,
    scale,
    softcap,
    D: tl.constexpr,
    E: tl.constexpr,
    WIDTH_D: tl.constexpr,
    WIDTH_E: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ALIGN: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTCAP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program for each part of the keys of each group; values in float32 and lse / log 2 of the part."""
    groups = heads // share
    plane = tl.program_id(0) // splits
    part = tl.program_id(0) % splits
    item, group = (plane // groups).to(tl.int64), plane % groups
    rows = tl.arange(0, BLOCK_M)
    real = rows < share * queries
    row = tl.minimum(rows // share, queries - 1)
    head = group * share + rows % share
    dims = tl.arange(0, WIDTH_D)[None, :]
    at = q_ptr + (item * sqb + head * sqh + row * sqm)[:, None] * ALIGN + dims
    q = tl.load(at, mask=real[:, None] & (dims < D), other=0.0)
    k_base = k_ptr + (item * skb + group * skh) * ALIGN
    v_base = v_ptr + (item * svb + group * svh) * ALIGN
    runs = item * srb + head * srh + row * srm
    bias_at = (bias_ptr + head * (queries + keys - 1) + (queries - 1) - row)[:, None]
    own = (row + keys - queries)[:, None]
    slope = 0.0
    if BIAS == 2:
        slope = tl.load(bias_ptr + head).to(tl.float32)[:, None]
    acc = tl.zeros([BLOCK_M, WIDTH_E], tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    first = part * chunk
    last = tl.minimum(first + chunk, keys)
    for slot in range(slots):
        start = tl.maximum(tl.load(start_ptr + runs + slot, mask=real, other=0), first)
        stop = tl.minimum(tl.load(stop_ptr + runs + slot, mask=real, other=0), last)
        low = tl.min(tl.where(start < stop, start, last), 0)
        high = tl.max(tl.where(start < stop, stop, first), 0)
        full_low = tl.max(tl.where(real, tl.where(start < stop, start, last), first), 0)
        full_high = tl.min(tl.where(real, tl.where(start < stop, stop, first), last), 0)
        count = tl.maximum(high - low + BLOCK_N - 1, 0) // BLOCK_N
        full = tl.minimum(tl.maximum(full_low - low + BLOCK_N - 1, 0) // BLOCK_N, count)
        end = tl.maximum(tl.minimum(tl.maximum(full_high - low, 0) // BLOCK_N, count), full)
        for n in range(full, end):
            acc, total, peak = take(
                acc, total, peak, q, k_base, v_base, low + n * BLOCK_N, skn * ALIGN, svn * ALIGN, start[:, None],
                stop[:, None], bias_at, own, slope, keys, scale, softcap, 0, row[:, None], 0, 0.0,
                D, E, WIDTH_D, WIDTH_E, BLOCK_N, False, BIAS, SOFTCAP, False, PRECISION,
            )  # fmt: skip
        for edge in range(full + count - end):
            n = tl.where(edge < full, edge, edge + end - full)
            acc, total, peak = take(
                acc, total, peak, q, k_base, v_base, low + n * BLOCK_N, skn * ALIGN, svn * ALIGN, start[:, None],
                stop[:, None], bias_at, own, slope, keys, scale, softcap, 0, row[:, None], 0, 0.0,
                D, E, WIDTH_D, WIDTH_E, BLOCK_N, True, BIAS, SOFTCAP, False, PRECISION,
            )  # fmt: skip
    seen = total > 0
    lse = tl.where(seen, peak + tl.log2(tl.where(seen, total, 1.0)), float("-inf"))
    place = (item * heads + head) * queries + row
    # (item, head, query, part): the parts of a query lie beside each other.
    tl.store(part_lse_ptr + place * splits + part, lse, mask=real)
    sizes = tl.arange(0, WIDTH_E)[None, :]
    to = part_ptr + ((place * splits + part) * E)[:, None] + sizes
    tl.store(to, acc / tl.where(seen, total, 1.0)[:, None], mask=real[:, None] & (sizes < E))


@triton.jit(do_not_specialize=("sob", "soh", "som", "splits", "heads", "queries"))
@no_type_check
def merge(
    part_ptr,
    part_lse_ptr,
    o_ptr,
    lse_ptr,
    sinks_ptr,
    sob,
    soh,
    som,
    splits,
    heads,
    queries,
    E: tl.constexpr,
    WIDTH_E: tl.constexpr,
    SEARCH: tl.constexpr,
    SINKS: tl.constexpr,
):
    """One program for each query of each head: its parts, and its sink, in one order. Only values have strides."""
    place = tl.program_id(0).to(tl.int64)
    plane, query = place // queries, place % queries
    parts, sizes = tl.arange(0, SEARCH), tl.arange(0, WIDTH_E)
    peak = float("-inf")
    if SINKS:
        peak = tl.load(sinks_ptr + plane % heads).to(tl.float32) * LOG2E
    sink = peak
    for base in range(0, splits, SEARCH):
        lse = tl.load(part_lse_ptr + place * splits + base + parts, mask=base + parts < splits, other=float("-inf"))
        peak = tl.maximum(peak, tl.max(lse, 0))
    shift = tl.where(peak == float("-inf"), 0.0, peak)
    total = tl.exp2(sink - shift)
    acc = tl.zeros([WIDTH_E], tl.float32)
    for part in range(splits):
        weight = tl.exp2(tl.load(part_lse_ptr + place * splits + part) - shift)
        total += weight
        acc += weight * tl.load(part_ptr + (place * splits + part) * E + sizes, mask=sizes < E, other=0.0)
    seen = total > 0
    tl.store(lse_ptr + place, tl.where(seen, (shift + tl.log2(tl.where(seen, total, 1.0))) * LN2, float("-inf")))
    values = acc / tl.where(seen, total, 1.0)
    to = o_ptr + (plane // heads) * sob + (plane % heads) * soh + query * som
    tl.store(to + sizes, values.to(o_ptr.dtype.element_ty), mask=sizes < E)
