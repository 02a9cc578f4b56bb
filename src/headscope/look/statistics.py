"""The statistics of `hs.look` and of a head, each of one attention call."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention.bias import DenseBias, OffsetBias
from headscope.attention.masks.mask import Intervals
from headscope.attention.masks.runs import Runs
from headscope.attention.request import Request
from headscope.errors import LookError
from headscope.look.kernels import by_rows
from headscope.look.kernels.ask import Ask
from headscope.look.kernels.diagonals import band
from headscope.look.kernels.gather import chosen
from headscope.look.kernels.stream import stream
from headscope.look.kernels.tiles import wide
from headscope.look.scoring import Scoring
from headscope.look.sequences import Sequences, aligned
from headscope.look.top import Top
from headscope.shapes import shape


def entropy(request: Request) -> Float[Tensor, "b h q"]:
    """`-Σ_j p_ij log p_ij` of every query."""
    if request.bias is None and request.softcap is None:
        q, k, scoring = wide(request.q), wide(request.k), Scoring.of(request)
        values, total = scoring.values_and_lse(q, k, k)
        seen = ~total.isneginf()
        total = total.masked_fill(~seen, 0.0)
        sinks = request.sinks
        share = seen.to(total.dtype) if sinks is None else 1.0 - torch.exp(sinks.to(total.dtype)[:, None] - total)
        return share * total - request.scale * (q * values).sum(-1)
    if request.trains:
        return by_rows.by_rows(request, by_rows.entropy)
    return there(stream(request, Ask(entropy=True)).entropy)


def concentration(request: Request) -> Float[Tensor, "b h q"]:
    """`Σ_j p_ij²` of every query."""
    if request.trains:
        return by_rows.by_rows(request, by_rows.concentration)
    return there(stream(request, Ask(concentration=True)).concentration)


def received(request: Request) -> Float[Tensor, "b h k"]:
    """`Σ_i p_ij` of every key."""
    if not request.trains:
        return there(stream(request, Ask(received=True)).received)
    if request.mask is None and request.bias is None and request.softcap is None:
        q, k, sinks = wide(request.q), wide(request.k), request.sinks
        total = Scoring(scale=request.scale, sinks=sinks).lse(q, k)
        # One more feature carries the bias of each query, so that any path can run it.
        asked = torch.cat([q * request.scale, -total[..., None]], dim=-1)
        keys = pad(k, (0, 1), value=1.0).repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        return Scoring(scale=1.0).lse(keys, asked).exp()
    return by_rows.by_rows(request, by_rows.received, total=True)


def project(request: Request, W: Float[Tensor, "*heads rows e"]) -> Float[Tensor, "b h q e"]:
    """`P W`."""
    keys = request.k.shape[2]
    if W.ndim not in (2, 4) or W.shape[-2] != keys:
        raise LookError(f"project: W is {shape(W)} and there are {keys} keys; give one row of W for each key.")
    q, k = wide(request.q), wide(request.k)
    values = W.to(q).expand(*k.shape[:2], *W.shape[-2:])
    return Scoring.of(request).values(q, k, values)


def offsets(request: Request, n: int, sequences: Sequences | None = None) -> Float[Tensor, "b h offsets"]:
    """The mean weight at each offset, in each sequence by itself.

    Args:
        sequences: those of the batch items, where more is known than the runs say.
    """
    queries, keys = request.q.shape[2], request.k.shape[2]
    if n < 0:
        raise LookError(f"offsets: n={n}; give the largest distance to look at, 0 or more.")
    if queries < 2:
        raise LookError(
            f"offsets: {queries} query has no profile over offsets; look at head.row(0), or record more queries."
        )
    if sequences is not None:
        return band(sequences.request(request), n, sequences)
    runs = request.runs()
    if runs is None or runs.start.shape[0] == 1:
        found = aligned(runs, queries, keys)
        return band(found.request(request), n, found)
    items = []
    for item in range(len(request.q)):
        one = item_of(request, item)
        found = aligned(one.runs(), queries, keys)
        items.append(band(found.request(one), n, found))
    return torch.cat(items) if items else request.q.new_zeros(0, request.q.shape[1], 2 * n + 1)


def item_of(request: Request, item: int) -> Request:
    """One batch item of a call."""
    queries, keys = request.q.shape[2], request.k.shape[2]
    part = slice(item, item + 1)
    runs, bias = request.runs(), request.bias
    mask = request.mask
    if runs is not None and runs.start.shape[0] > 1:
        mask = Intervals(Runs(runs.start[part], runs.stop[part]), keys)
    if bias is not None and not isinstance(bias, OffsetBias):
        bias = DenseBias(x[part] if len(x := bias.block(slice(0, queries), 0, keys, queries, keys)) > 1 else x)
    q, k, v = request.q[part], request.k[part], request.v[part]
    return Request(q, k, v, mask, bias, request.scale, request.softcap, request.sinks)


def top(request: Request, n: int) -> Top:
    """The `n` largest weights of every query and their keys."""
    keys = request.k.shape[2]
    if not 1 <= n <= keys:
        raise LookError(f"top: n={n}; there are {keys} keys, so give 1 to {keys}.")
    seen = stream(request, Ask(top=n))
    return Top(there(seen.top_weights), there(seen.top_keys))


def heatmap(request: Request, size: int, how: str) -> Float[Tensor, "b h rows columns"]:
    """The mean or the largest weight of each cell of a picture."""
    if size < 1:
        raise LookError(f"heatmap: size={size}; give the most cells on a side, 1 or more.")
    if how not in ("mean", "max"):
        raise LookError(f'heatmap: how={how!r}; give "mean" or "max".')
    cells = cells_for(request.q.shape[2], request.k.shape[2], size)
    seen = stream(request, Ask(mean_map=how == "mean", max_map=how == "max", cells=cells))
    return there(seen.mean_map if how == "mean" else seen.max_map)


def cells_for(queries: int, keys: int, size: int) -> tuple[int, int]:
    """How many queries and keys a cell of a map has, so that there are at most `size` cells on each side."""
    return max(1, -(-queries // size)), max(1, -(-keys // size))


def weights(
    request: Request, rows: Int64[Tensor, " rows"], columns: Int64[Tensor, " columns"]
) -> Float[Tensor, "b h rows columns"]:
    """The weights of chosen queries and keys, with gradients."""
    return chosen(request, lse(request), rows, columns)


def lse(request: Request) -> Float[Tensor, "b h q"]:
    """The log of the sum of exponentiated scores of every query, in float32 or better."""
    return Scoring.of(request).lse(wide(request.q), wide(request.k))


def there(found: Tensor | None) -> Tensor:
    """What was asked of a pass is there."""
    assert found is not None
    return found
