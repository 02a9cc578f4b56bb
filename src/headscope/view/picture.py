"""A head as a small picture: the largest weight of each block of cells, so that thin stripes stay in sight."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headscope.look.head import Head

# Weights that are looked at together: 2**20 float32 values stay in a core's cache.
BLOCK = 2**20


def picture(head: Head, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
    """The weights of a head, pooled to at most `rows` x `columns`: the largest of each block.

    Shapes:
        returns `(min(rows, q), min(columns, k))`, float32; minus one where no key of the block may be seen.

    Example:
        >>> picture(Head(10 * torch.eye(4), 10 * torch.eye(4)), 2, 2).round().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    q, k = len(head.q), len(head.k)
    rows, columns = min(rows, q), min(columns, k)
    to_row = (torch.arange(q) * rows).div(q, rounding_mode="floor")
    to_column = (torch.arange(k) * columns).div(k, rounding_mode="floor")
    small = torch.full((rows, columns), -1.0)
    step = max(1, BLOCK // k)
    for first in range(0, q, step):
        part = slice(first, min(first + step, q))
        weights = head.weights(part).float().cpu().masked_fill(~may_see(head, part), -1.0)
        narrow = torch.full((len(weights), columns), -1.0)
        narrow.scatter_reduce_(1, to_column.expand(len(weights), -1), weights, "amax")
        small.scatter_reduce_(0, to_row[part, None].expand(-1, columns), narrow, "amax")
    return small


def top(weights: Float[Tensor, "rows columns"], keys: int) -> float:
    """The top of a linear scale: the largest weight, or four times what equal weights would be where that is more.

    An even head looks even so, and not as dark as one with a single large weight in each row.
    """
    return max(float(weights.max()), min(1.0, 4 / keys))


def may_see(head: Head, rows: slice) -> Bool[Tensor, "rows k"]:
    """Which keys the queries in a slice may see."""
    keys = torch.arange(len(head.k))
    seen = torch.zeros(len(range(*rows.indices(len(head.q)))), len(head.k), dtype=torch.bool)
    # One run at a time: (rows, keys, runs) would be many times the block.
    for start, stop in zip(*(side[rows].cpu().unbind(-1) for side in head.runs), strict=True):
        seen |= (keys >= start[:, None]) & (keys < stop[:, None])
    return seen
