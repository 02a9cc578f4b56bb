"""Differentiable looks at any call of attention: blocks of rows that are made again in the backward pass.

Only q, k and the results are kept for the backward pass, so the memory is O(N) for every mask, bias, softcap and sink.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from headscope.attention.paths.formula import normalise, scores
from headscope.attention.request import Request
from headscope.look.kernels.tiles import LOW, added, allowed, wide

BLOCK = 2**20

# Scores relative to the lse (0 where the weight is 0) and weights of a block of rows -> what is looked at.
Statistic = Callable[[Tensor, Tensor], Tensor]


def entropy(logs: Tensor, weights: Tensor) -> Tensor:
    """`-Σ_j p_ij log p_ij`."""
    return -(weights * logs).sum(-1)


def concentration(logs: Tensor, weights: Tensor) -> Tensor:
    """`Σ_j p_ij²`."""
    return weights.square().sum(-1)


def received(logs: Tensor, weights: Tensor) -> Tensor:
    """`Σ_i p_ij`, of this block."""
    return weights.sum(2)


def by_rows(request: Request, statistic: Statistic, *, total: bool = False) -> Tensor:
    """A statistic of all queries, joined along the queries or, where each block gives its share, added up.

    Gradients reach q, k, sinks and what the bias is made from.
    """
    parameters = () if request.bias is None else request.bias.parameters
    sinks = request.sinks if request.sinks is not None else request.q.new_zeros(0)
    found: Tensor = ByRows.apply(request, statistic, total, request.q, request.k, sinks, *parameters)  # type: ignore[no-untyped-call]
    return found


class ByRows(torch.autograd.Function):
    """Blocks of rows, made once in the forward pass and once more, with their gradients, in the backward pass."""

    @staticmethod
    def forward(ctx: Any, request: Request, statistic: Statistic, total: bool, *inputs: Tensor) -> Tensor:
        """The blocks' results, joined or added up."""
        ctx.request, ctx.statistic, ctx.total = request, statistic, total
        ctx.save_for_backward(*inputs)
        q, k, sinks = inputs[:3]
        found = [statistic(*block(request, rows, q[:, :, rows], k, sinks)) for rows in blocks(request)]
        return torch.stack(found).sum(0) if total else torch.cat(found, dim=2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Each block again, with a graph of its own that is gone before the next one is made."""
        gradient, request = gradients[0], ctx.request
        inputs = ctx.saved_tensors
        wanted = [number for number, needed in enumerate(ctx.needs_input_grad[3:]) if needed]
        sums = {number: torch.zeros_like(wide(inputs[number])) for number in wanted}
        for rows in blocks(request):
            with torch.enable_grad():
                q, k, sinks = (x.detach().requires_grad_() for x in (inputs[0][:, :, rows], *inputs[1:3]))
                sources = (q, k, sinks, *inputs[3:])
                found = ctx.statistic(*block(request, rows, q, k, sinks))
            share = gradient if ctx.total else gradient[:, :, rows]
            parts = torch.autograd.grad(found, [sources[n] for n in wanted], share, allow_unused=True)
            for number, part in zip(wanted, parts, strict=True):
                if part is not None:
                    (sums[number] if number else sums[number][:, :, rows]).add_(part)
        return (None, None, None, *(sums[n].to(x.dtype) if n in sums else None for n, x in enumerate(inputs)))


def blocks(request: Request) -> Iterator[slice]:
    """The queries, a block at a time."""
    b, h, queries, _ = request.q.shape
    step = max(1, BLOCK // max(1, b * h * request.k.shape[2]))
    for first in range(0, queries, step):
        yield slice(first, min(first + step, queries))


def block(request: Request, rows: slice, q: Tensor, k: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
    """Scores relative to the lse, and weights, of a block of rows; q has only these rows."""
    keys, runs, seen = k.shape[2], request.runs(), None
    if runs is not None:
        start, stop = (side[:, :, rows] if side.shape[2] > 1 else side for side in runs)
        seen = allowed(start.flatten(0, 1), stop.flatten(0, 1), 0, keys).view(*start.shape[:3], keys)
    bias = added(request, rows, 0, keys)
    limits = {"scale": request.scale, "softcap": request.softcap, "bias": bias, "allowed": seen}
    s = scores(wide(q), wide(k), **limits)  # type: ignore[arg-type]
    weights, lse = normalise(s, None if request.sinks is None else sinks.to(s.dtype))
    finite, below = s > LOW, lse.masked_fill(lse.isneginf(), 0.0)[..., None]
    return torch.where(finite, s.masked_fill(~finite, 0.0) - below, 0.0), weights
