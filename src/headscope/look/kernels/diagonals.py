"""Weights near the own position: the band of the matrix around its diagonal."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention.masks.runs import Runs
from headscope.attention.request import Request
from headscope.look.kernels.tiles import LOG2_E, added, wide
from headscope.look.scoring import Scoring
from headscope.look.sequences import Sequences

# Queries of which a block of products is made at once; it is as wide as they are many, plus the band.
ROWS = 128


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
    q, k = wide(request.q) * request.scale, wide(request.k)
    queries, keys = q.shape[2], k.shape[2]
    own, groups = sequences.own, sequences.groups.to(q.device)
    own = torch.arange(queries) + keys - queries if own is None else own.cpu()
    lse = lse.masked_fill(lse.isneginf(), 0.0)
    sums = q.new_zeros(*q.shape[:2], 2 * n + 1)
    places = own.to(q.device)[:, None] + torch.arange(-n, n + 1, device=q.device)
    inside = (places >= 0) & (places < keys)
    if keys:
        same_group = groups[places.clamp(0, keys - 1)] == groups[own.clamp(0, keys - 1).to(q.device)][:, None]
        inside = inside & same_group
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1).transpose(2, 3)
    for begin in range(0, queries, ROWS):
        rows = slice(begin, min(begin + ROWS, queries))
        first, last = int(own[rows.start]) - n, int(own[rows.stop - 1]) + n + 1
        left, right = max(first, 0), min(last, keys)
        if right <= left:
            continue
        around, at = (left - first, last - right), places[rows] - first
        in_steps = bool((own[rows].diff() == 1).all())
        s = near(q[:, :, rows] @ k[..., left:right], around, at, in_steps)
        if request.softcap is not None:
            s = request.softcap * (s / request.softcap).tanh()
        bias = added(request, rows, left, right)
        if bias is not None:
            size = (*bias.shape[:2], rows.stop - rows.start, right - left)
            s = s + near(bias.expand(size), around, at, in_steps)
        counts = inside[rows] & seen(request.runs(), rows, places[rows])
        # exp2, since on a CPU exp takes many times as long for what nobody may see.
        weights = torch.exp2((s - lse[:, :, rows, None]) * LOG2_E)
        sums = sums + torch.where(counts, weights, 0.0).sum(2)
    return sums, inside.sum(0)


def near(
    block: Float[Tensor, "b h rows keys"], around: tuple[int, int], at: Int64[Tensor, "rows offsets"], in_steps: bool
) -> Float[Tensor, "b h rows offsets"]:
    """Of every row of a block the keys around its own.

    Args:
        around: keys that are not there before the first and behind the last one.
        at: where those that are wanted stand, these included.
        in_steps: whether every row stands one key further than the row above: then they are a view, row for row one
            number further than a row is long.
    """
    block = pad(block, around) if any(around) else block
    rows, keys = block.shape[2:]
    if not in_steps:
        return block.gather(3, at.clamp(0, keys - 1).expand(*block.shape[:2], -1, -1))
    return pad(block.flatten(2), (0, rows)).view(*block.shape[:3], keys + 1)[..., : at.shape[1]]


def seen(runs: Runs | None, rows: slice, at: Int64[Tensor, "rows offsets"]) -> Bool[Tensor, "b h rows offsets"]:
    """Which of some keys each query may see, of these rows."""
    if runs is None:
        return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=at.device).expand(1, 1, *at.shape)
    start, stop = ((side[:, :, rows] if side.shape[2] > 1 else side)[..., None, :] for side in runs)
    return ((at[..., None] >= start) & (at[..., None] < stop)).any(-1)
