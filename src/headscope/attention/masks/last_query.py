"""What the last query of a mask may see, as plain numbers: one query on a cache is a slice of its keys, not a plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headscope.attention.masks.runs import Runs

# Half-open ranges of keys, ascending and apart from each other.
Ranges = tuple[tuple[int, int], ...]

# A key that is copied and read again costs about as much as so many that are read.
GATHERED = 3


@dataclass(frozen=True, slots=True)
class LastQuery:
    """The keys that the last query may see.

    Attributes:
        ranges: the keys; with `among`, the one range from the first to the last key that any item or head sees.
        among: which keys of that range each item or head sees; None where all see all of them.
        items, heads: for how many batch items and heads the mask is; 1 where all share it.
    """

    ranges: Ranges
    among: Any = None  # a dense mask, which stands on this module
    items: int = 1
    heads: int = 1

    @property
    def hull(self) -> tuple[int, int]:
        """From the first key to behind the last one."""
        return (self.ranges[0][0], self.ranges[-1][1]) if self.ranges else (0, 0)

    @property
    def gathers(self) -> bool:
        """Whether the keys of several ranges are few beside all from the first to the last."""
        first, last = self.hull
        return sum(b - a for a, b in self.ranges) * GATHERED <= last - first

    def slice(self, x: Tensor) -> Tensor:
        """The keys (or values) that are seen, `(b, h, k, d)`: a view, or the keys of several ranges side by side."""
        if len(self.ranges) > 1:
            return torch.cat([x[:, :, a:b] for a, b in self.ranges], dim=2)
        first, last = self.ranges[0] if self.ranges else (0, 0)
        return x if last - first == x.shape[2] else x.narrow(2, first, last - first)


def intersect(a: LastQuery, b: LastQuery) -> LastQuery | None:
    """The keys that both see; None where that takes more than numbers."""
    items, heads = max(a.items, b.items), max(a.heads, b.heads)
    if a.among is None and b.among is None:
        pairs = ((max(x[0], y[0]), min(x[1], y[1])) for x in a.ranges for y in b.ranges)
        return LastQuery(tuple((x, y) for x, y in pairs if x < y), None, items, heads)
    if a.among is not None:
        a, b = b, a
    if a.among is not None or len(a.ranges) > 1:
        return None
    (first, last), (start, stop) = a.hull, b.hull
    if first <= start and stop <= last:
        return b if (items, heads) == (b.items, b.heads) else replace(b, items=items, heads=heads)
    first, last = max(first, start), min(last, stop)
    if first >= last:
        return LastQuery((), None, items, heads)
    assert b.among is not None
    return LastQuery(((first, last),), b.among.columns(first - start, last - start), items, heads)


def unite(a: LastQuery, b: LastQuery) -> LastQuery | None:
    """The keys that either sees; None where that takes more than numbers."""
    if a.among is not None or b.among is not None:
        return None
    joined: list[tuple[int, int]] = []
    for first, last in sorted(a.ranges + b.ranges):
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        else:
            joined.append((first, last))
    return LastQuery(tuple(joined), None, max(a.items, b.items), max(a.heads, b.heads))


def of_range(first: int, last: int) -> LastQuery:
    """One range that all see."""
    return LastQuery(((first, last),)) if first < last else LastQuery(())


def of_runs(runs: Runs) -> tuple[Ranges, Tensor | None]:
    """The ranges of runs for one query; where items or heads differ, their hull and who sees what of it."""
    start, stop = (side.numpy().reshape(-1, side.shape[-1]) for side in runs)
    real = stop > start
    if not real.any():
        return (), None
    if len(start) == 1 or ((start == start[0]) & (stop == stop[0])).all():
        ends = zip(start[0].tolist(), stop[0].tolist(), strict=True)
        return tuple((a, b) for a, b in ends if a < b), None
    first, last = int(start[real].min()), int(stop[real].max())
    return ((first, last),), runs.block(slice(0, 1), first, last)


def of_dense(allowed: Tensor) -> tuple[Ranges, bool]:
    """The hull of what a boolean mask for one query lets anyone see, and whether everyone sees all of it."""
    if not allowed.numel():
        return (), True
    seen = allowed.numpy().reshape(-1, allowed.shape[-1])
    columns = np.flatnonzero(seen.any(0))
    if not len(columns):
        return (), True
    first, last = int(columns[0]), int(columns[-1]) + 1
    return ((first, last),), bool(seen[:, first:last].all())


def of_lengths(lengths: Tensor, keys: int) -> tuple[Ranges, Tensor | None]:
    """The first keys of each item, out of so many."""
    numbers = [min(n, keys) for n in lengths.tolist()]
    longest = max(numbers, default=0)
    if longest == 0:
        return (), None
    if min(numbers) == longest:
        return ((0, longest),), None
    places = torch.arange(longest, dtype=torch.int32)
    return ((0, longest),), (places < lengths.clamp(max=keys)[:, None])[:, None, None]
