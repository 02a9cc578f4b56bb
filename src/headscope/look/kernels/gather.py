"""The weights of chosen queries on chosen keys."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headscope.attention.paths.formula import scores
from headscope.attention.request import Request
from headscope.look.kernels.tiles import wide


def chosen(
    request: Request,
    lse: Float[Tensor, "b h q"],
    rows: Int64[Tensor, " rows"],
    columns: Int64[Tensor, " columns"],
) -> Float[Tensor, "b h rows columns"]:
    """`exp(s_ij - lse_i)` of some queries and some keys, without gradients."""
    queries, keys = request.q.shape[2], request.k.shape[2]
    rows, columns = rows.to(lse.device), columns.to(lse.device)
    with torch.no_grad():
        q, k = wide(request.q[:, :, rows]), wide(request.k[:, :, columns])
        allowed = bias = None
        runs = request.runs()
        if runs is not None:
            start, stop = (x if x.shape[2] == 1 else x[:, :, rows] for x in runs)
            at = columns[None, :, None]
            allowed = ((at >= start[..., None, :]) & (at < stop[..., None, :])).any(-1)
        if request.bias is not None and len(rows):
            first, last = int(rows.min()), int(rows.max()) + 1
            block = request.bias.block(slice(first, last), 0, keys, queries, keys)
            block = block.expand(-1, -1, last - first, keys)
            bias = block[:, :, rows - first][..., columns].to(q.dtype)
        s = scores(q, k, scale=request.scale, softcap=request.softcap, bias=bias, allowed=allowed)
        below = lse[:, :, rows].to(s.dtype)
        return torch.exp(s - below.masked_fill(below.isneginf(), 0.0)[..., None])
