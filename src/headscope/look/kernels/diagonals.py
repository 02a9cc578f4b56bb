"""Weights near the own position: the band of the matrix around its diagonal."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention.masks.runs import Runs
from headscope.attention.request import Request
from headscope.look.kernels.tiles import LOG2_E, LOW, added, wide
from headscope.look.scoring import Scoring
from headscope.look.sequences import Sequences

# Queries of which a block of products is made at once; it is as wide as they are many, plus the band.
ROWS = 64


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
    own = torch.arange(queries) + keys - queries if own is None else own.cpu()
    lse = lse.masked_fill(lse.isneginf(), 0.0)
    sums = q.new_zeros(*q.shape[:2], 2 * n + 1)
    places = own.to(q.device)[:, None] + torch.arange(-n, n + 1, device=q.device)
    inside = (places >= 0) & (places < keys)
    if keys:
        same_group = groups[places.clamp(0, keys - 1)] == groups[own.clamp(0, keys - 1).to(q.device)][:, None]
        inside = inside & same_group
    if k.shape[1] < q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    runs = request.runs()
    for begin in range(0, queries, ROWS):
        rows = slice(begin, min(begin + ROWS, queries))
        first, last = int(own[rows.start]) - n, int(own[rows.stop - 1]) + n + 1
        if min(last, keys) <= max(first, 0):
            continue
        at = places[rows] - first if bool((own[rows].diff() != 1).any()) else None
        logs = band_logs(request, q[:, :, rows], k, lse[:, :, rows], rows, (first, last), at, 2 * n + 1)
        counts = inside[rows] if runs is None else inside[rows] & seen(runs, rows, places[rows])
        if not counts.all():
            logs = logs.masked_fill(~counts, LOW)
        # exp2, since on a CPU exp takes many times as long for what nobody may see.
        sums = sums + logs.exp2().sum(2)
    return sums, inside.sum(0)


def band_logs(
    request: Request,
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    rows: slice,
    between: tuple[int, int],
    at: Int64[Tensor, "rows offsets"] | None,
    count: int,
) -> Float[Tensor, "b h rows offsets"]:
    """The logarithms in base 2 of the weights of some queries on the keys around their own.

    Args:
        q, lse: of these queries.
        between: the keys of which products are made; some may not exist.
        at, count: as in `near`.
    """
    (first, last), keys = between, k.shape[2]
    left, right = max(first, 0), min(last, keys)
    around = (left - first, last - right)
    # Keys that do not exist are zeros: that is less to write than columns of scores.
    some = k[:, :, left:right]
    some = (pad(some, (0, 0, *around)) if any(around) else some).transpose(2, 3)
    if request.softcap is None and request.bias is None:
        return torch.add(-lse[..., None], near(q @ some, at, count), alpha=request.scale) * LOG2_E
    s = near(request.scale * q @ some, at, count)
    if request.softcap is not None:
        s = request.softcap * (s / request.softcap).tanh()
    bias = added(request, rows, left, right)
    if bias is not None:
        size = (*bias.shape[:2], q.shape[2], right - left)
        s = s + near(pad(bias.expand(size), around), at, count)
    return (s - lse[..., None]) * LOG2_E


def near(
    block: Float[Tensor, "b h rows keys"], at: Int64[Tensor, "rows offsets"] | None, count: int
) -> Float[Tensor, "b h rows offsets"]:
    """Of every row of a block the keys around its own.

    Args:
        at: where they stand; None where every row stands one key further than the row above. Then they are a view, row
            for row one number further than a row is long.
        count: how many these are.
    """
    keys = block.shape[3]
    if at is None:
        return block.flatten(2).unfold(2, count, keys + 1)
    return block.gather(3, at.clamp(0, keys - 1).expand(*block.shape[:2], -1, -1))


def seen(runs: Runs, rows: slice, at: Int64[Tensor, "rows offsets"]) -> Bool[Tensor, "b h rows offsets"]:
    """Which of some keys each query may see, of these rows."""
    start, stop = ((side[:, :, rows] if side.shape[2] > 1 else side)[..., None, :] for side in runs)
    return ((at[..., None] >= start) & (at[..., None] < stop)).any(-1)
