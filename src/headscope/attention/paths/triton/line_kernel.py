"""Less common kernels: the gradient of a bias by distance, and the factors of dropout, written out."""

from typing import no_type_check

import triton
import triton.language as tl

from headscope.attention.paths.triton.score_block import kept, load_rows
from headscope.attention.paths.triton.score_gradient import BACKWARD_SIZES, row_lse, row_numbers, slopes_of


@triton.jit
@no_type_check
def load_keys(base, key, stride, keys, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    """Rows of keys that may lie before the first or after the last: zeros there."""
    columns = tl.arange(0, WIDTH)[None, :]
    at = base + key.to(tl.int64)[:, None] * stride + columns
    return tl.load(at, mask=(key >= 0)[:, None] & (key < keys)[:, None] & (columns < SIZE), other=0.0)


@triton.jit
@no_type_check
def seen_by(start_at, stop_at, rows, key, queries, keys, slots):
    """Which keys each query may see, over all its runs."""
    seen = (rows[:, None] < 0) & (key < 0)
    for slot in range(slots):
        start = tl.load(start_at + slot, mask=rows < queries, other=0)[:, None]
        stop = tl.load(stop_at + slot, mask=rows < queries, other=0)[:, None]
        seen = seen | ((key >= start) & (key < stop))
    return seen & (key >= 0) & (key < keys)


@triton.jit(do_not_specialize=(*BACKWARD_SIZES, "items"))
@no_type_check
def line_gradient(
    q_ptr,
    k_ptr,
    v_ptr,
    grad_ptr,
    lse_ptr,
    drawn_ptr,
    dline_ptr,
    start_ptr,
    stop_ptr,
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
    items,
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
    BLOCK: tl.constexpr,
    ALIGN: tl.constexpr,
    SOFTCAP: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program for each block of distances of each head, over all queries: the pairs of a distance are a diagonal.

    A block of queries and a block of distances lie in a parallelogram of `2 · BLOCK` keys; its rows are shifted, so
    that distances stand below each other, and added up.
    """
    count = queries + keys - 1
    spans = tl.cdiv(count, BLOCK)
    head, offset = tl.program_id(0) // spans, tl.program_id(0) % spans * BLOCK
    group = head // share
    seed = tl.load(seed_ptr) if DROPOUT else 0
    skew = tl.arange(0, BLOCK)[:, None] + tl.arange(0, BLOCK)[None, :]
    total = tl.zeros([BLOCK], tl.float32)
    # The queries that have a key at one of these distances.
    low = tl.maximum(queries - offset - BLOCK, 0) // BLOCK
    high = tl.cdiv(tl.minimum(count - offset, queries), BLOCK)
    for item in range(items):
        plane = item * heads + head
        wide = tl.cast(item, tl.int64)
        for block in range(low, high):
            first = block * BLOCK
            rows = first + tl.arange(0, BLOCK)
            row = tl.minimum(rows, queries - 1)
            key = first + offset - (queries - 1) + tl.arange(0, 2 * BLOCK)
            runs = wide * srb + head * srh + row * srm
            seen = seen_by(start_ptr + runs, stop_ptr + runs, rows, key[None, :], queries, keys, slots)
            q = load_rows(
                q_ptr + (wide * sqb + head * sqh) * ALIGN, first, sqm * ALIGN, queries, BLOCK, D, WIDTH_D, True
            )
            grad = load_rows(
                grad_ptr + (wide * sgb + head * sgh) * ALIGN, first, sgm * ALIGN, queries, BLOCK, E, WIDTH_E, True
            )
            k = load_keys(k_ptr + (wide * skb + group * skh) * ALIGN, key, skn * ALIGN, keys, D, WIDTH_D)
            v = load_keys(v_ptr + (wide * svb + group * svh) * ALIGN, key, svn * ALIGN, keys, E, WIDTH_E)
            lse = row_lse(lse_ptr, plane, rows, queries)[:, None]
            drawn = row_numbers(drawn_ptr, plane, rows, queries, 0.0)[:, None]
            product = tl.dot(q, tl.trans(k), input_precision=PRECISION)
            of_values = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
            within = tl.minimum(tl.maximum(key, 0), keys - 1)[None, :]
            bias_at = (bias_ptr + head * count + (queries - 1) - row)[:, None]
            # Not seen: from 0 up to, but not including, 0.
            stop = tl.where(seen, within + 1, 0)
            _, gradient, _ = slopes_of(
                product, of_values, within, row[:, None], 0, stop, bias_at, 0, 0.0, lse, drawn, keys, scale, softcap,
                seed, plane, dropout, True, 1, SOFTCAP, DROPOUT,
            )  # fmt: skip
            total += tl.sum(tl.gather(gradient, skew, 1), 0)
    at = offset + tl.arange(0, BLOCK)
    tl.store(dline_ptr + head * count + at, total, mask=at < count)


@triton.jit(do_not_specialize=("queries", "keys"))
@no_type_check
def write_kept(out_ptr, seed_ptr, queries, keys, dropout, BLOCK: tl.constexpr):
    """The factors of dropout of a block of queries and keys of a head, as the other kernels make them."""
    rows = tl.arange(0, BLOCK)[:, None]
    columns = tl.arange(0, BLOCK)[None, :]
    blocks = tl.cdiv(queries, BLOCK)
    plane = tl.program_id(0) // blocks
    row = tl.program_id(0) % blocks * BLOCK + rows
    key = tl.program_id(1) * BLOCK + columns
    factors = kept(tl.load(seed_ptr), key, row, plane, dropout)
    at = (tl.cast(plane, tl.int64) * queries + row) * keys + key
    tl.store(out_ptr + at, factors, mask=(row < queries) & (key < keys))
