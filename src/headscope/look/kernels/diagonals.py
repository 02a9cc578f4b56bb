"""Weights near the own position: the band of the matrix around its diagonal."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headscope.attention.paths.formula import scores
from headscope.attention.request import Request
from headscope.look.kernels.tiles import LOG2_E, added, allowed, wide
from headscope.look.scoring import Scoring
from headscope.look.sequences import Sequences

# Queries of which a block of scores is made at once; it is as wide as they are many, plus the band.
ROWS = 256


def band(request: Request, n: int, sequences: Sequences) -> Float[Tensor, "b h offsets"]:
    """The mean weight at the offsets `-n … n`, over the queries that have a key there; differentiable."""
    lse = Scoring.of(request).lse(wide(request.q), wide(request.k))
    sums, counts = band_sums(request, n, lse, sequences)
    return sums / counts.clamp(min=1)


def band_sums(
    request: Request, n: int, lse: Tensor, sequences: Sequences
) -> tuple[Float[Tensor, "b h offsets"], Int64[Tensor, " offsets"]]:
    """The sums of the weights at the offsets `-n … n`, over the queries that have a key there; and how many these are.

    Args:
        request: `sequences.request` of the call. A key at an offset counts when it is of the query's own sequence.
    """
    q, k = wide(request.q), wide(request.k)
    queries, keys = q.shape[2], k.shape[2]
    own, groups = sequences.own, sequences.groups.to(q.device)
    own = torch.arange(queries) + keys - queries if own is None else own
    runs = request.runs()
    lse = lse.masked_fill(lse.isneginf(), 0.0)
    sums = q.new_zeros(*q.shape[:2], 2 * n + 1)
    places = own.to(q.device)[:, None] + torch.arange(-n, n + 1, device=q.device)
    inside = (places >= 0) & (places < keys)
    if keys:
        same_group = groups[places.clamp(0, keys - 1)] == groups[own.clamp(0, keys - 1).to(q.device)][:, None]
        inside = inside & same_group
    for begin in range(0, queries, ROWS):
        rows = slice(begin, min(begin + ROWS, queries))
        first = max(int(own[rows.start]) - n, 0)
        last = min(int(own[rows.stop - 1]) + n + 1, keys)
        if last <= first:
            continue
        seen = None
        if runs is not None:
            start, stop = (side[:, :, rows] if side.shape[2] > 1 else side for side in runs)
            seen = allowed(start.flatten(0, 1), stop.flatten(0, 1), first, last).view(*start.shape[:3], last - first)
        bias = added(request, rows, first, last)
        limits = {"scale": request.scale, "softcap": request.softcap, "bias": bias, "allowed": seen}
        s = scores(q[:, :, rows], k[:, :, first:last], **limits)  # type: ignore[arg-type]
        # exp2, since on a CPU exp takes many times as long for what nobody may see.
        weights = torch.exp2((s - lse[:, :, rows, None]) * LOG2_E)
        at = (places[rows] - first).clamp(0, last - first - 1).expand(*weights.shape[:2], -1, -1)
        sums = sums + (weights.gather(3, at) * inside[rows]).sum(2)
    return sums, inside.sum(0)
