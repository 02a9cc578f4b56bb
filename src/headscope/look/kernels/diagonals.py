"""Weights near the own position: the band of the matrix around its diagonal."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headscope.attention.api import attend_lse
from headscope.attention.paths.formula import scores
from headscope.attention.request import Request
from headscope.look.kernels.tiles import LOG2_E, allowed, wide

# Queries of which a block of scores is made at once; it is as wide as they are many, plus the band.
ROWS = 256


def band(request: Request, n: int) -> Float[Tensor, "b h offsets"]:
    """The mean weight at the offsets `-n … n`, over the queries that have a key there; differentiable."""
    q, k = wide(request.q), wide(request.k)
    options = {"mask": request.mask, "bias": request.bias, "scale": request.scale, "softcap": request.softcap}
    lse = attend_lse(q, k, k, sinks=request.sinks, **options)[1]  # type: ignore[arg-type]
    sums, counts = band_sums(request, n, lse)
    return sums / counts.clamp(min=1)


def band_sums(
    request: Request, n: int, lse: Tensor, counted: Tensor | None = None
) -> tuple[Float[Tensor, "b h offsets"], Int64[Tensor, " offsets"]]:
    """The sums of the weights at the offsets `-n … n`, over the queries that have a key there; and how many these are.

    Args:
        counted: which queries count; all of them unless given.
    """
    q, k = wide(request.q), wide(request.k)
    queries, keys = q.shape[2], k.shape[2]
    shift, runs = keys - queries, request.runs()
    lse = lse.masked_fill(lse.isneginf(), 0.0)
    sums = q.new_zeros(*q.shape[:2], 2 * n + 1)
    own = torch.arange(queries, device=q.device)[:, None] + shift + torch.arange(-n, n + 1, device=q.device)
    inside = (own >= 0) & (own < keys)
    if counted is not None:
        inside = inside & counted.to(q.device)[:, None]
    for begin in range(0, queries, ROWS):
        rows = slice(begin, min(begin + ROWS, queries))
        first, last = max(begin + shift - n, 0), min(rows.stop + shift + n, keys)
        if last <= first:
            continue
        seen = bias = None
        if runs is not None:
            start, stop = (side[:, :, rows] if side.shape[2] > 1 else side for side in runs)
            seen = allowed(start.flatten(0, 1), stop.flatten(0, 1), first, last).view(*start.shape[:3], last - first)
        if request.bias is not None:
            bias = request.bias.block(rows, first, last, queries, keys).to(q.dtype)
        limits = {"scale": request.scale, "softcap": request.softcap, "bias": bias, "allowed": seen}
        s = scores(q[:, :, rows], k[:, :, first:last], **limits)  # type: ignore[arg-type]
        # exp2, since on a CPU exp takes many times as long for what nobody may see.
        weights = torch.exp2((s - lse[:, :, rows, None]) * LOG2_E)
        at = (own[rows] - first).clamp(0, last - first - 1).expand(*weights.shape[:2], -1, -1)
        sums = sums + (weights.gather(3, at) * inside[rows]).sum(2)
    return sums, inside.sum(0)
