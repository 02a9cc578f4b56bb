"""What every kernel does with a block of queries and keys: load it, make its scores, visit the blocks of a run.

Scores are in units of log 2, since exp2 is what the hardware has. Arguments in capitals are known when a kernel is
compiled: head sizes and which options there are; never a length, the size of a batch, or a mask.
"""

# Triton reads the source of these functions: mypy and the shape checks of the tests leave them alone (no_type_check).
from typing import no_type_check

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
# Kinds of bias by distance.
LINE = tl.constexpr(1)
SLOPE = tl.constexpr(2)


@triton.jit
@no_type_check
def load_rows(
    base, first, stride, limit, ROWS: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr, EDGE: tl.constexpr
):
    """`ROWS` rows of a matrix from `first` on; zeros past `limit` rows (where EDGE) and past `SIZE` columns."""
    rows, columns = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    # The first row may be far away; from there on 32 bits are enough.
    at = base + tl.cast(first, tl.int64) * stride + (rows[:, None] * stride + columns[None, :])
    if EDGE:
        inside = first + rows[:, None] < limit
        if SIZE < WIDTH:
            inside = inside & (columns[None, :] < SIZE)
        loaded = tl.load(at, mask=inside, other=0.0)
    elif SIZE < WIDTH:
        loaded = tl.load(at, mask=columns[None, :] < SIZE, other=0.0)
    else:
        loaded = tl.load(at)
    return loaded


@triton.jit
@no_type_check
def store_rows(base, first, stride, limit, values, ROWS: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    """Write a block of rows, but what lies past `limit` rows and `SIZE` columns."""
    rows, columns = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    at = base + tl.cast(first, tl.int64) * stride + (rows[:, None] * stride + columns[None, :])
    inside = (first + rows[:, None] < limit) & (columns[None, :] < SIZE)
    tl.store(at, values.to(base.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def visits(hull, BLOCK_N: tl.constexpr):
    """The blocks of keys of a hull: its first key, how many blocks, and the first and last of those without a mask."""
    low, high = tl.load(hull), tl.load(hull + 1)
    full_low, full_high = tl.load(hull + 2), tl.load(hull + 3)
    count = tl.maximum(high - low + BLOCK_N - 1, 0) // BLOCK_N
    first = tl.minimum(tl.maximum(full_low - low + BLOCK_N - 1, 0) // BLOCK_N, count)
    last = tl.maximum(tl.minimum(tl.maximum(full_high - low, 0) // BLOCK_N, count), first)
    return low, count, first, last


@triton.jit
@no_type_check
def tanh(x):
    """tanh from exp2; near 0 from its series, where the difference would lose digits."""
    x2 = x * x
    series = x * (1.0 + x2 * (-1.0 / 3 + x2 * (2.0 / 15 + x2 * (-17.0 / 315 + x2 * (62.0 / 2835)))))
    return tl.where(tl.abs(x) < 0.25, series, 1.0 - 2.0 / (1.0 + tl.exp2(x * (2.0 * LOG2E))))


@triton.jit
@no_type_check
def finish(
    product,
    key,
    start,
    stop,
    bias_at,
    own,
    slope,
    keys,
    scale,
    softcap,
    EDGE: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTCAP: tl.constexpr,
):
    """Scores / log 2 from products of queries and keys, and what the softcap made of them before the bias, in ±1.

    All arguments of pairs have two axes, so that either may be the one of the queries. `bias_at` points to the bias of
    key 0 for a query; `own` is the query's own position among the keys.
    """
    bent = product
    if SOFTCAP:
        bent = tanh(product * (scale / softcap))
        scores = bent * (softcap * LOG2E)
    else:
        scores = product * (scale * LOG2E)
    if BIAS == LINE:
        if EDGE:
            scores += tl.load(bias_at + key, mask=key < keys, other=0.0).to(tl.float32) * LOG2E
        else:
            scores += tl.load(bias_at + key).to(tl.float32) * LOG2E
    elif BIAS == SLOPE:
        scores -= tl.abs(key - own).to(tl.float32) * (slope * LOG2E)
    if EDGE:
        scores = tl.where((key >= start) & (key < stop), scores, float("-inf"))
    return scores, bent


@triton.jit
@no_type_check
def kept(seed, key, query, plane, dropout):
    """What dropout multiplies each weight with, from a counter of (key, query, head): the same in every kernel.

    Source: Philox4x32-10 (Salmon et al. 2011).
    """
    zero = (key + query) * 0
    bits, _, _, _ = tl.philox(seed, zero + key, zero + query, zero + plane, zero)
    return tl.where(tl.uint_to_uniform_float(bits) >= dropout, 1.0 / (1.0 - dropout), 0.0)
