"""Pictures with a fixed number of rows and columns: the largest weight of each cell, whatever the sizes of a head.

Query i of q is in row `i * rows // q`, and keys likewise: cells differ by at most one query and one key in size.
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headscope.attention.masks.runs import Runs

# Queries of a cell from which on an operation for each cell is faster than one for all of them.
MANY = 8


class PictureCells:
    """The largest weights of pictures of some heads, from blocks of their weights.

    Attributes:
        largest: `(n, rows, columns)`; 0 where no weight was seen.
    """

    def __init__(self, cells: tuple[int, int], heads: int, queries: int, keys: int, like: Tensor) -> None:
        self.queries, self.keys = queries, keys
        rows, columns = min(cells[0], queries), min(cells[1], keys)
        self.largest = like.new_zeros(heads, rows, columns)
        self.column_of = torch.arange(keys, device=like.device) * columns // max(keys, 1)

    def take(self, items: slice, rows: slice, first: int, weights: Float[Tensor, "n rows keys"]) -> None:
        """Add a block of weights of consecutive queries on the keys from `first` on."""
        count = self.largest.shape[1]
        top, end = rows.start * count // self.queries, (rows.stop - 1) * count // self.queries + 1
        # Over queries first: that compares whole vectors of keys, and leaves little for the keys.
        if count < self.queries < MANY * count:
            row = torch.arange(rows.start, rows.stop, device=weights.device) * count // self.queries - top
            small = weights.new_zeros(len(weights), end - top, weights.shape[2])
            weights = small.scatter_reduce_(1, row[:, None].expand(weights.shape), weights, "amax")
        elif count < self.queries:
            edges = [max(-(-row * self.queries // count), rows.start) - rows.start for row in range(top, end)]
            edges.append(rows.stop - rows.start)
            weights = torch.stack([weights[:, start:stop].amax(1) for start, stop in itertools.pairwise(edges)], 1)
        target = self.largest[items, top:end]
        if target.shape[2] < self.keys:
            columns = self.column_of[first : first + weights.shape[2]].expand(weights.shape)
            target.scatter_reduce_(2, columns, weights, "amax")
        else:
            target = target[..., first : first + weights.shape[2]]
            torch.maximum(target, weights, out=target)


def seen_cells(runs: Runs, cells: tuple[int, int], keys: int) -> Bool[Tensor, "rows columns"]:
    """In which cells of a picture of one head any query may see a key; start and stop are `(q, r)`."""
    start, stop = (side.cpu().long() for side in runs)
    queries = len(start)
    rows, columns = min(cells[0], queries), min(cells[1], keys)
    row = (torch.arange(queries) * rows // max(queries, 1))[:, None].expand_as(start)
    filled = stop > start
    steps = torch.zeros(rows, columns + 1, dtype=torch.int32)
    one = torch.ones(int(filled.sum()), dtype=torch.int32)
    steps.index_put_((row[filled], start[filled] * columns // max(keys, 1)), one, accumulate=True)
    steps.index_put_((row[filled], (stop[filled] - 1) * columns // max(keys, 1) + 1), -one, accumulate=True)
    return steps[:, :-1].cumsum(1) > 0
