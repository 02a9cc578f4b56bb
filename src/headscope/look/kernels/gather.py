"""The scores and the weights of chosen queries on chosen keys."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor

from headscope.attention.paths import formula
from headscope.attention.request import Request
from headscope.look.kernels.tiles import added, wide


def scores(
    request: Request, rows: Int64[Tensor, " rows"], columns: Int64[Tensor, " columns"]
) -> Float[Tensor, "b h rows columns"]:
    """What the softmax is taken of, scale, softcap and bias included; minus infinity where a query does not see a key.

    Differentiable.
    """
    keys = request.k.shape[2]
    rows, columns = rows.to(request.q.device), columns.to(request.q.device)
    q, k = wide(request.q[:, :, rows]), wide(request.k[:, :, columns])
    allowed = bias = None
    runs = request.runs()
    if runs is not None:
        start, stop = (x if x.shape[2] == 1 else x[:, :, rows] for x in runs)
        at = columns[None, :, None]
        allowed = ((at >= start[..., None, :]) & (at < stop[..., None, :])).any(-1)
    if len(rows):
        first, last = int(rows.min()), int(rows.max()) + 1
        bias = added(request, slice(first, last), 0, keys)
        if bias is not None:
            bias = bias.expand(-1, -1, last - first, keys)[:, :, rows - first][..., columns]
    return formula.scores(q, k, scale=request.scale, softcap=request.softcap, bias=bias, allowed=allowed)


def chosen(
    request: Request,
    lse: Float[Tensor, "b h q"],
    rows: Int64[Tensor, " rows"],
    columns: Int64[Tensor, " columns"],
) -> Float[Tensor, "b h rows columns"]:
    """`exp(s_ij - lse_i)` of some queries and some keys; differentiable."""
    s = scores(request, rows, columns)
    below = lse[:, :, rows.to(lse.device)].to(s.dtype)
    return (s - below.masked_fill(below.isneginf(), 0.0)[..., None]).exp()
