"""One call of attention: q, k, v, who may see whom, and what changes the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from headscope.attention.bias import Line
from headscope.attention.masks.runs import Runs, intersect
from headscope.attention.masks.tensors import runs_of


@dataclass
class Call:
    """One attention call, as it was; q, k, v and sinks are still the model's own tensors, the others are not.

    Shapes:
        q `(b, h, q, d)`, k `(b, g, k, d)`, v `(b, g, k, e)`, runs `(b|1, h|1, q|1, r)`, bias `(b|1, h|1, q|1, k|1)`,
        by_offset `(h|1, q + k - 1)`, sinks `(h,)`.

    Attributes:
        by_offset: a bias that only depends on the distance: query i and key j have number `j - i + q - 1`.
        cross: whether queries and keys are different states; None where the call does not tell.
        source: "weights" where only the weights are known; see `from_weights`.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    runs: Runs | None
    bias: Tensor | None
    scale: float
    softcap: float | None = None
    sinks: Tensor | None = None
    cross: bool | None = None
    source: Literal["call", "weights"] = "call"
    by_offset: Tensor | None = None

    def bias_of(self, rows: Sequence[int]) -> Tensor | None:
        """What is added to the scores of some queries, `(b|1, h|1, rows|1, k|1)`; None for nothing."""
        if self.by_offset is None:
            return self.bias if self.bias is None or self.bias.shape[2] == 1 else self.bias[:, :, rows]
        queries, keys = self.q.shape[2], self.k.shape[2]
        line = Line(self.by_offset, keys)
        parts = [line.block(slice(row, row + 1), 0, keys, queries, keys) for row in rows]
        return torch.cat(parts, 2) if parts else self.by_offset.new_zeros(1, 1, 0, keys)


def four_axes(x: Tensor, leading: torch.Size, heads: int | None, rank: int | None = None) -> Tensor:
    """`(batch, heads, positions, size)` from two, three or more axes.

    Args:
        leading: the axes before the heads that q, k and v have together.
        heads: how many heads the calling module has; of three axes the first is the batch and its heads.
        rank: how many axes the largest of q, k and v has, where that is another one.
    """
    rank = max(x.ndim, rank or 0)
    if rank == 2:
        return x[None, None]
    if rank == 3:
        x = x if x.ndim == 3 else x[None]
        return x.reshape(-1, heads, *x.shape[1:]) if heads and x.shape[0] % heads == 0 else x[:, None]
    x = x if x.ndim > 2 else x[None]
    x = x.expand(*leading, *x.shape[-3:])
    return x if x.ndim == 4 else x.reshape(-1, *x.shape[-3:])


def mask_axes(mask: Tensor, rank: int, leading: torch.Size, heads: int | None) -> Tensor:
    """A mask for q, k and v of another rank than four, with the axes that `four_axes` gives them."""
    if rank == 3 and mask.ndim == 3:
        if mask.shape[0] == 1:
            return mask[:, None]
        return four_axes(mask, leading, heads)
    if mask.ndim <= 4:
        return mask
    if all(size == 1 for size in mask.shape[:-3]):
        return mask.reshape(1, *mask.shape[-3:])
    return mask.expand(*leading, *mask.shape[-3:]).reshape(-1, *mask.shape[-3:])


def both(a: Runs | None, b: Runs | None) -> Runs | None:
    """The runs that both allow; None allows everything."""
    if a is None or b is None:
        return b if a is None else a
    return intersect(a, b)


def from_weights(weights: Tensor, v: Tensor) -> Call:
    """A call that is known by its weights alone: their logarithm is the bias of scores that are 0.

    Where rows sum to less than 1, something that is no key (a sink) took the rest: then there is a sink of 0, and the
    logarithm is that of the weights as shares of the rest.
    """
    b, h, queries, keys = weights.shape
    q, k = weights.new_zeros(b, h, queries, 1), weights.new_zeros(b, v.shape[1], keys, 1)
    runs = runs_of(weights > 0)
    known = weights.detach().float()
    bias, rest, sinks = known.log(), 1 - known.sum(-1, keepdim=True), None
    if bool((rest > 1e-3).any()) and bool((rest > -1e-3).all()):
        bias, sinks = bias - rest.clamp(min=1e-12).log(), known.new_zeros(h)
    return Call(q, k, v, runs, bias.masked_fill(weights <= 0, 0.0), 1.0, sinks=sinks, source="weights")
