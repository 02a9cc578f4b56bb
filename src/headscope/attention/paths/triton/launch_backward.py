"""The launches of the backward: gradients of q, k, v, of a bias by distance, and of sinks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headscope.attention.paths.triton.launch import (
    LINE,
    SLOPE,
    Options,
    alignment,
    constants,
    filled,
    mask_strides,
    strides,
)
from headscope.attention.paths.triton.sizes import size_of

# Blocks of queries whose hulls a program reads at a time.
SEARCH = 256
# Queries, and distances, in a block of the gradient of a line of biases.
DIAGONAL = 32


def backward(
    options: Options,
    inputs: Sequence[Tensor | None],
    values: Tensor,
    lse: Tensor,
    grad: Tensor | None,
    grad_lse: Tensor | None,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Gradients of q, k, v, of the numbers of the bias and of the sinks, for those of values and lse.

    Args:
        inputs: q, k, v, the numbers of the bias, sinks.
        wanted: which of these need a gradient.
    """
    q, k, v, bias, sinks = inputs
    assert q is not None
    assert k is not None
    assert v is not None
    grad = torch.zeros_like(values) if grad is None else grad.to(values.dtype)
    if grad.stride(3) != 1 or alignment(grad) != alignment(values):
        grad = grad.contiguous()
    drawn = rows_product(options, values, lse, grad, grad_lse)
    own = Backward(options, q, k, v, bias, lse, grad, drawn)
    dq, dslopes = own.queries() if wanted[0] or (wanted[3] and options.bias_kind == SLOPE) else (None, None)
    dk, dv = own.keys() if wanted[1] or wanted[2] else (None, None)
    dbias = own.line() if wanted[3] and options.bias_kind == LINE else dslopes if wanted[3] else None
    dsinks = None
    if sinks is not None and wanted[4]:
        share = torch.exp(sinks.to(lse.dtype).unsqueeze(-1) - lse.masked_fill(lse.isneginf(), 0.0))
        dsinks = -(share * drawn).sum((0, 2)).to(sinks.dtype)
    return dq, dk, dv, dbias, dsinks


def rows_product(options: Options, values: Tensor, lse: Tensor, grad: Tensor, grad_lse: Tensor | None) -> Tensor:
    """`Σ dO ∘ O - d lse` of each query, `(b, h, q)` in float32."""
    from headscope.attention.paths.triton import score_gradient

    b, h, queries, e = values.shape
    drawn = torch.empty_like(lse)
    align = alignment(values, grad)
    block = 16 if options.device.interpreted else 64
    taken = None if grad_lse is None else grad_lse.to(torch.float32).contiguous()
    score_gradient.rows_product[(-(-queries // block) * b * h,)](
        values, grad, filled(taken, lse), drawn, *strides(align, values, grad), h, queries,
        E=e, WIDTH_E=max(16, 1 << (e - 1).bit_length()), BLOCK_M=block, ALIGN=align, LSE=taken is not None,
    )  # fmt: skip
    return drawn


class Backward:
    """What the kernels of one backward share."""

    def __init__(
        self,
        options: Options,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        lse: Tensor,
        grad: Tensor,
        drawn: Tensor,
    ) -> None:
        self.options, self.q, self.k, self.v, self.bias = options, q, k, v, bias
        self.lse, self.grad, self.drawn = lse, grad, drawn
        self.read = q, k, v, grad, lse, drawn
        self.numbers = options.scale, options.softcap or 0.0, options.dropout
        self.counts = (q.shape[1], q.shape[1] // k.shape[1], q.shape[2], k.shape[2], options.runs.start.shape[3])

    def queries(self) -> tuple[Tensor, Tensor | None]:
        """The gradients of q, and of the slopes of the bias."""
        from headscope.attention.paths.triton import queries_kernel

        options, q = self.options, self.q
        b, h, queries, d = q.shape
        size = size_of("queries", d, self.v.shape[3], q.dtype, options.device, options.many)
        blocks, hulls, dq = -(-queries // size.queries), options.hulls(size.queries), torch.empty_like(q)
        slants = torch.zeros(b, h, blocks, dtype=torch.float32, device=q.device)
        align = alignment(q, self.k, self.v, self.grad, dq)
        queries_kernel.queries_gradient[(blocks * b * h,)](
            *self.read, dq, slants, options.runs.start, options.runs.stop, hulls, filled(self.bias, q),
            filled(options.seed, q), *strides(align, q, self.k, self.v, self.grad, dq),
            *mask_strides(options.runs, hulls), *self.counts, *self.numbers,
            **constants(q, self.v, size, align, options),
        )  # fmt: skip
        return dq, slants.sum((0, 2)) if options.bias_kind == SLOPE else None

    def keys(self) -> tuple[Tensor, Tensor]:
        """The gradients of k and v."""
        from headscope.attention.paths.triton import keys_kernel

        options, q, k, v = self.options, self.q, self.k, self.v
        size = size_of("keys", q.shape[3], v.shape[3], q.dtype, options.device, options.many)
        hulls, align = options.hulls(size.queries), alignment(q, k, v, self.grad)
        dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (k, v))
        keys_kernel.keys_gradient[(-(-k.shape[2] // size.keys) * k.shape[0] * k.shape[1],)](
            *self.read, dk, dv, options.runs.start, options.runs.stop, hulls, filled(self.bias, q),
            filled(options.seed, q), *strides(align, q, k, v, self.grad), *mask_strides(options.runs, hulls),
            *self.counts, *self.numbers, SEARCH=SEARCH, **constants(q, v, size, align, options),
        )  # fmt: skip
        return dk, dv

    def line(self) -> Tensor:
        """The gradient of a line of biases, `(h, q + k - 1)`."""
        from headscope.attention.paths.triton import line_kernel

        options, q, k = self.options, self.q, self.k
        h, count = q.shape[1], q.shape[2] + k.shape[2] - 1
        block = 16 if options.device.interpreted or q.dtype == torch.float32 else DIAGONAL
        dline = torch.empty(h, count, dtype=torch.float32, device=q.device)
        align = alignment(q, k, self.v, self.grad)
        size = size_of("queries", q.shape[3], self.v.shape[3], q.dtype, options.device, options.many)
        known = constants(q, self.v, size._replace(stages=1), align, options)
        for name in ("BLOCK_M", "BLOCK_N", "BIAS"):
            del known[name]
        line_kernel.line_gradient[(-(-count // block) * h,)](
            *self.read, dline, options.runs.start, options.runs.stop, filled(self.bias, q), filled(options.seed, q),
            *strides(align, q, k, self.v, self.grad), *mask_strides(options.runs, options.runs.start)[:3],
            q.shape[0], *self.counts, *self.numbers, BLOCK=block, **known,
        )  # fmt: skip
        return dline


def dropout_factors(options: Options, q: Tensor, k: Tensor) -> Tensor:
    """What dropout multiplies every weight with, `(b, h, q, k)` in float32."""
    from headscope.attention.paths.triton import line_kernel

    b, h, queries, _ = q.shape
    keys, block = k.shape[2], 16 if options.device.interpreted else 32
    factors = torch.empty(b, h, queries, keys, dtype=torch.float32, device=q.device)
    grid = -(-queries // block) * b * h, -(-keys // block)
    line_kernel.write_kept[grid](factors, filled(options.seed, q), queries, keys, options.dropout, BLOCK=block)
    return factors
