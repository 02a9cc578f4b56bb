"""What both backward kernels do with a block of pairs: its weights again from the lse, and the gradient of its scores.

Source: FlashAttention-2 (Dao 2023), algorithm 2.
"""

from typing import no_type_check

import triton
import triton.language as tl

from headscope.attention.paths.triton.forward_kernel import SIZES
from headscope.attention.paths.triton.score_block import LOG2E, finish, kept, load_rows

BACKWARD_SIZES = (*SIZES, "sgb", "sgh", "sgm", "sdb", "sdh", "sdm")


@triton.jit(do_not_specialize=("sob", "soh", "som", "sgb", "sgh", "sgm", "heads", "queries"))
@no_type_check
def rows_product(
    o_ptr,
    grad_ptr,
    grad_lse_ptr,
    drawn_ptr,
    sob,
    soh,
    som,
    sgb,
    sgh,
    sgm,
    heads,
    queries,
    E: tl.constexpr,
    WIDTH_E: tl.constexpr,
    BLOCK_M: tl.constexpr,
    ALIGN: tl.constexpr,
    LSE: tl.constexpr,
):
    """`Σ dO ∘ O` of each query, less the gradient of its lse: what the softmax takes back from each of its scores."""
    blocks = tl.cdiv(queries, BLOCK_M)
    plane, first = tl.program_id(0) // blocks, tl.program_id(0) % blocks * BLOCK_M
    item, head = (plane // heads).to(tl.int64), plane % heads
    rows = first + tl.arange(0, BLOCK_M)
    o = load_rows(o_ptr + (item * sob + head * soh) * ALIGN, first, som * ALIGN, queries, BLOCK_M, E, WIDTH_E, True)
    grad = load_rows(
        grad_ptr + (item * sgb + head * sgh) * ALIGN, first, sgm * ALIGN, queries, BLOCK_M, E, WIDTH_E, True
    )
    drawn = tl.sum(o.to(tl.float32) * grad.to(tl.float32), 1)
    at = tl.cast(plane, tl.int64) * queries + rows
    if LSE:
        drawn -= tl.load(grad_lse_ptr + at, mask=rows < queries, other=0.0)
    tl.store(drawn_ptr + at, drawn, mask=rows < queries)


@triton.jit
@no_type_check
def slopes_of(
    product,
    weights_of_values,
    key,
    query,
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
    plane,
    dropout,
    EDGE: tl.constexpr,
    BIAS: tl.constexpr,
    SOFTCAP: tl.constexpr,
    DROPOUT: tl.constexpr,
):
    """Weights (after dropout) and the gradients of the scores before and after the softcap, of a block of pairs.

    `product` is q·k and `weights_of_values` dO·v; every argument of pairs has two axes, in either order.
    """
    scores, bent = finish(product, key, start, stop, bias_at, own, slope, keys, scale, softcap, EDGE, BIAS, SOFTCAP)
    weights = tl.exp2(scores - lse)
    if DROPOUT:
        keep = kept(seed, key, query, plane, dropout)
        gradient = weights * (weights_of_values * keep - drawn)
        weights *= keep
    else:
        gradient = weights * (weights_of_values - drawn)
    inner = gradient
    if SOFTCAP:
        inner = gradient * (1.0 - bent * bent)
    return weights, gradient, inner


@triton.jit
@no_type_check
def row_numbers(ptr, plane, rows, queries, other):
    """One number of each query of a head, and `other` past the last."""
    return tl.load(ptr + tl.cast(plane, tl.int64) * queries + rows, mask=rows < queries, other=other)


@triton.jit
@no_type_check
def row_lse(ptr, plane, rows, queries):
    """The lse / log 2 of each query; plus infinity where no key has a weight, so that every weight is 0 there."""
    lse = row_numbers(ptr, plane, rows, queries, float("inf"))
    return tl.where(lse == float("-inf"), float("inf"), lse * LOG2E)
