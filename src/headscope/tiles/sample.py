"""The coarsest levels of a map, estimated from a sample of its queries while the exact ones are not there yet.

Every row of cells is cut into as many stretches of queries as it has samples, and one query is drawn from each. A mean
is unbiased; its standard error is that of the sample, which for a stratified one is rather too large than too small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.attention.request import Request
from headscope.look.kernels.part import part
from headscope.look.kernels.pool import LARGEST_CELL, extents, pool
from headscope.look.pyramid import Level
from headscope.tiles.strip_file import Shape

# Queries drawn from each row of cells of the finest estimated level.
DRAWN = 4


class Estimate(NamedTuple):
    """Estimated levels from zoom `first` on, and the standard error of the means of each."""

    first: int
    levels: tuple[Level, ...]
    errors: tuple[Float[Tensor, "rows columns"], ...]

    def error(self, z: int, rows: slice, columns: slice) -> float:
        """The standard error of some cells, root mean square over those that are seen."""
        at = z - self.first
        seen = self.levels[at].seen[rows, columns]
        found = self.errors[at][rows, columns][seen]
        return float(found.square().mean().sqrt()) if found.numel() else 0.0


def estimate(request: Request, shape: Shape, between: Callable[[], None] = lambda: None) -> Estimate:
    """The two coarsest levels of a head's map, from a sample; `between` is called between blocks."""
    first = max(shape.base, shape.top - 1)
    rows = drawn(shape.queries, 1 << first)
    width = min(1 << first, LARGEST_CELL)
    found = pool(part(request, rows), 1, width, between=between)
    counts = extents(shape.keys, width, found.mean)
    sums, largest, seen = found.mean * counts, found.max, found.seen.to(found.mean.dtype)
    sums, largest, seen = (
        wider(x, (1 << first) // width, how) for x, how in ((sums, "sum"), (largest, "max"), (seen, "max"))
    )
    levels, errors = [], []
    for z in range(first, shape.top + 1):
        level, error = of_zoom(rows, sums, largest, seen, shape, z)
        levels.append(level)
        errors.append(error)
        sums, largest, seen = wider(sums, 2, "sum"), wider(largest, 2, "max"), wider(seen, 2, "max")
    return Estimate(first, tuple(levels), tuple(errors))


def drawn(queries: int, cell: int) -> Tensor:
    """The queries of the sample, ascending: always the same for the same sizes."""
    step = max(cell // DRAWN, 1)
    starts = torch.arange(0, queries, step)
    room = (queries - starts).clamp(max=step)
    within = torch.rand(len(starts), generator=torch.Generator().manual_seed(0)) * room
    return starts + within.long().clamp(max=room - 1)


def wider(x: Tensor, times: int, how: str) -> Tensor:
    """Neighbouring columns together."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[1] % times)).view(len(x), -1, times)
    return padded.sum(2) if how == "sum" else padded.amax(2)


def of_zoom(rows: Tensor, sums: Tensor, largest: Tensor, seen: Tensor, shape: Shape, z: int) -> tuple[Level, Tensor]:
    """One level and its errors, from the pooled rows of the sample."""
    cells = rows >> z
    count = torch.zeros(-(-shape.queries // (1 << z)), dtype=sums.dtype).index_add_(
        0, cells, torch.ones_like(sums[:, 0])
    )
    values = sums / extents(shape.keys, 1 << z, sums)
    empty = sums.new_zeros(len(count), sums.shape[1])
    mean = empty.index_add(0, cells, values) / count[:, None]
    squares = empty.index_add(0, cells, (values - mean[cells]).square())
    error = (squares / (count * (count - 1).clamp(min=1))[:, None]).sqrt()
    at = cells[:, None].expand_as(sums)
    top, shown = (empty.scatter_reduce(0, at, x, "amax") for x in (largest, seen))
    return Level(mean, top, shown > 0), error
