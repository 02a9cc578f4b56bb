"""A part of an attention call: some of its queries, and a stretch of its keys."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from headscope.attention.masks.mask import Intervals
from headscope.attention.masks.runs import Runs
from headscope.attention.request import Request
from headscope.look.sequences import PartOfBias


def part(request: Request, rows: slice | Int64[Tensor, " rows"], first: int = 0, last: int | None = None) -> Request:
    """The call of chosen queries on the keys `first … last - 1`, with the mask and bias that they have in the whole.

    q and k are views where the queries are a slice. The lse of a part is that of the whole only where it has all keys.
    """
    queries, keys = request.q.shape[2], request.k.shape[2]
    last = keys if last is None else last
    q, k = request.q[:, :, rows], request.k[:, :, first:last]
    mask, runs = None, request.runs()
    if runs is not None:
        start, stop = (side if side.shape[2] == 1 else side[:, :, rows] for side in runs)
        mask = Intervals(Runs(*((side - first).clamp(0, last - first) for side in (start, stop))), last - first)
    bias = request.bias
    if bias is not None:
        numbers = torch.arange(queries)[rows] if isinstance(rows, slice) else rows
        bias = PartOfBias(bias, numbers, torch.arange(first, last), queries, keys)
    return Request(q, k, k, mask, bias, request.scale, request.softcap, request.sinks, where=request.where)
