"""Sinks: one more logit in the denominator of every query of a head, to which no value belongs.

Source: the learned sinks of gpt-oss; StreamingLLM (Xiao et al. 2023) says why heads want one.
"""

from __future__ import annotations

import torch
from torch import Tensor


def with_sinks(values: Tensor, lse: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
    """A pair (values, lse) over the keys, with the sinks of its heads in the denominator; differentiable.

    A query that sees no key has all its weight in the sink: values of zero, and the sink as its lse.

    Shapes:
        values `(b, h, q, e)`, lse `(b, h, q)`, sinks `(h,)`.
    """
    logits = sinks.to(lse.dtype)[None, :, None]
    return values * sinks_left(lse, sinks)[..., None].to(values.dtype), torch.logaddexp(lse, logits)


def sinks_left(lse: Tensor, sinks: Tensor) -> Tensor:
    """The share of the weight that the sinks leave to the keys, `(b, h, q)`."""
    return torch.sigmoid(lse - sinks.to(lse.dtype)[:, None])


def sinks_gradient(grad: Tensor, values: Tensor, lse: Tensor, grad_lse: Tensor | None, sinks: Tensor) -> Tensor:
    """The gradient of the sinks, `(h,)`, from the pair that holds them and the gradients of both.

    With p the share of the sink, `d lse / d sink = p` and `d values / d sink = -p · values`.
    """
    share = torch.exp(sinks.to(lse.dtype)[None, :, None] - lse.masked_fill(lse.isneginf(), 0.0))
    drawn = torch.empty_like(lse)
    # One batch item at a time: the products are as large as the values.
    for item in range(len(grad)):
        drawn[item] = (grad[item].to(lse.dtype) * values[item].to(lse.dtype)).sum(-1)
    taken = -drawn if grad_lse is None else grad_lse - drawn
    return (share * taken).sum((0, 2)).to(sinks.dtype)
