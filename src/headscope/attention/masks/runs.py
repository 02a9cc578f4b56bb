"""Runs of keys: for every query, a few intervals `start <= j < stop` of the keys it may see; and their set algebra.

This is the whole meaning of a mask (design idea 1): O(N) memory, easy to cut into tiles, easy to save.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int32
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention.known import known

# As many columns of runs stay as they are on a GPU.
FEW_COLUMNS = 4


class Runs(NamedTuple):
    """For every query the half-open intervals of keys it may see, ascending and disjoint.

    An empty interval has `start == stop`. The axes of batch, head and query have size 1 where all share the same runs.

    Shapes:
        start, stop: `(b|1, h|1, q|1, r)`, int32.
    """

    start: Int32[Tensor, "b h q r"]
    stop: Int32[Tensor, "b h q r"]

    def to(self, device: torch.device | str | None) -> Runs:
        """The same runs on another device."""
        return self if device is None else Runs(self.start.to(device), self.stop.to(device))

    def item(self, number: int) -> Runs:
        """The runs of one batch item."""
        return self if len(self.start) == 1 else Runs(self.start[number : number + 1], self.stop[number : number + 1])

    def counts(self) -> Int32[Tensor, "b h q"]:
        """How many keys every query may see."""
        return (self.stop - self.start).sum(-1, dtype=torch.int32)

    def block(self, rows: slice, first: int, last: int) -> Bool[Tensor, "b h rows keys"]:
        """Who may see whom among the queries `rows` and the keys `first … last - 1`, written out."""
        start, stop = self.start, self.stop
        if start.shape[2] > 1:
            start, stop = start[:, :, rows], stop[:, :, rows]
        keys = torch.arange(first, last, device=start.device, dtype=torch.int32)
        # One run at a time: r is small, and (…, rows, keys, r) would be r times the block.
        seen = (keys >= start[..., 0, None]) & (keys < stop[..., 0, None])
        for r in range(1, start.shape[-1]):
            seen = seen | ((keys >= start[..., r, None]) & (keys < stop[..., r, None]))
        return seen


def trim(start: Tensor, stop: Tensor) -> Runs:
    """Runs in normal form: empty ones last and at 0, the others ascending, no more columns than needed."""
    empty = stop <= start
    if start.shape[-1] == 1:
        return Runs(start.masked_fill(empty, 0).int(), stop.masked_fill(empty, 0).int())
    last = torch.iinfo(torch.int32).max
    start, order = start.int().masked_fill(empty, last).sort(dim=-1)
    stop = stop.int().gather(-1, order)
    needed = start.shape[-1]
    # Columns that may be empty cost a GPU less than Python waiting for their number.
    if known(empty) and empty.numel() and not (empty.is_cuda and needed <= FEW_COLUMNS):
        needed = max(int((~empty).sum(-1).max()), 1)
    gone = start == last
    return Runs(
        start.masked_fill(gone, 0)[..., :needed].contiguous(), stop.masked_fill(gone, 0)[..., :needed].contiguous()
    )


def intersect(a: Runs, b: Runs) -> Runs:
    """The keys that are in a run of `a` and in a run of `b`."""
    start = torch.maximum(a.start[..., :, None], b.start[..., None, :]).flatten(-2)
    stop = torch.minimum(a.stop[..., :, None], b.stop[..., None, :]).flatten(-2)
    return trim(start, stop)


def unite(a: Runs, b: Runs) -> Runs:
    """The keys that are in a run of `a` or of `b`; runs that touch become one."""
    sizes = torch.broadcast_shapes(a.start.shape[:-1], b.start.shape[:-1])  # type: ignore[no-untyped-call]
    start = torch.cat([a.start.expand(*sizes, -1), b.start.expand(*sizes, -1)], dim=-1)
    stop = torch.cat([a.stop.expand(*sizes, -1), b.stop.expand(*sizes, -1)], dim=-1)
    last = torch.iinfo(torch.int32).max
    start, order = start.masked_fill(stop <= start, last).sort(dim=-1)
    stop = stop.gather(-1, order)
    # A run opens a new group unless it begins inside, or right at the end of, what came before it.
    reach = stop.cummax(dim=-1).values
    opens = torch.ones_like(start, dtype=torch.bool)
    opens[..., 1:] = start[..., 1:] > reach[..., :-1]
    group = opens.long().cumsum(-1) - 1
    first = torch.full_like(start, last).scatter_reduce(-1, group, start, "amin")
    final = torch.zeros_like(stop).scatter_reduce(-1, group, stop, "amax")
    return trim(first, final.masked_fill(first == last, last))


def from_dense(allowed: Bool[Tensor, "b h q k"]) -> Runs:
    """The runs of a boolean mask whose True means "may attend"."""
    # int8 as soon as possible: a pad of booleans is one of the few things that an ONNX graph cannot hold.
    steps = pad(allowed.to(torch.int8), (1, 1)).diff(dim=-1)
    opens, closes = steps == 1, steps == -1
    if not known(allowed):
        return Runs(positions(opens), positions(closes))
    rank = opens.cumsum(-1) - 1
    counts = opens.sum(-1)
    columns = max(int(counts.max()), 1) if counts.numel() else 1
    start = torch.zeros(*allowed.shape[:-1], columns, dtype=torch.int32, device=allowed.device)
    stop = start.clone()
    where = opens.nonzero(as_tuple=True)
    # Opens and closes alternate along a row, so their n-th ones belong together.
    which = (*where[:-1], rank[where])
    start[which] = where[-1].int()
    stop[which] = closes.nonzero(as_tuple=True)[-1].int()
    return Runs(start, stop)


def positions(marks: Bool[Tensor, "b h q edges"]) -> Int32[Tensor, "b h q r"]:
    """Where the marks of every row are, ascending, then zeros: in as many columns as a row can have runs.

    Needs no numbers: the columns follow from the sizes alone.
    """
    edges = marks.shape[-1]
    places = torch.arange(edges, device=marks.device, dtype=torch.int32)
    # Marks first, in their order: a key of the row that sorts all others behind them.
    order = torch.where(marks, places, edges).sort(dim=-1).values
    # Selected, not sliced: a slice would ask the sizes of a traced graph whether it fits.
    order = order.index_select(-1, torch.arange((edges + 1) // 2, device=marks.device))
    return order.masked_fill(order == edges, 0).int()


def concatenate(parts: Sequence[Runs], queries: Sequence[int]) -> Runs:
    """The runs of blocks of queries, below each other.

    Args:
        queries: how many queries each part is for; a part with one shared row is repeated.

    Shapes:
        each part `(b|1, h|1, n|1, r)` → `(b|1, h|1, sum of queries, widest r)`.
    """
    rows = [Runs(*(side.expand(-1, -1, n, -1) for side in part)) for part, n in zip(parts, queries, strict=True)]
    return _joined(rows, 2)


def stack(parts: Sequence[Runs]) -> Runs:
    """The runs of batch items, one after the other along the batch; rows that only some of them share are repeated.

    Shapes:
        each part `(n, h|1, q|1, r)` → `(sum of n, h|1, q|1, widest r)`.
    """
    return _joined(parts, 0)


def _joined(parts: Sequence[Runs], axis: int) -> Runs:
    """Runs along one axis; the other axes are expanded and the columns padded with empty runs where they differ."""
    sizes = [max(part.start.shape[n] for part in parts) for n in range(4)]

    def side(which: int) -> Tensor:
        wide = []
        for part in parts:
            x = pad(part[which], (0, sizes[3] - part[which].shape[3]))
            wide.append(x.expand(*(x.shape[n] if n == axis else sizes[n] for n in range(4))))
        return torch.cat(wide, dim=axis)

    return Runs(side(0), side(1))
