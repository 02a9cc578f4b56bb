"""A head's weights as a map: tiles of 256 x 256 cells at any zoom, each with the mean and the largest of its weights.

At zoom z a cell pools 2^z x 2^z weights: 0 is the finest, and at the coarsest one tile holds the head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention.request import Request
from headscope.errors import LookError
from headscope.look.kernels.part import part
from headscope.look.kernels.pool import LARGEST_CELL, Pooled, extents, pool

TILE = 256
# The sides of the finest level of a pyramid in memory: 38 MB of it.
CELLS = 2048


class Level(NamedTuple):
    """The map of a head, or a part of it, at one zoom.

    Shapes:
        mean, max, seen: `(rows, columns)`.

    Attributes:
        mean: over all weights of a cell; those that the mask forbids count as 0.
        seen: whether any query of a cell may see any key of it.
    """

    mean: Float[Tensor, "rows columns"]
    max: Float[Tensor, "rows columns"]
    seen: Bool[Tensor, "rows columns"]

    def cut(self, x: int, y: int) -> Level:
        """One tile of a level that is whole."""
        return Level(*(side[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE] for side in self))


@dataclass(frozen=True, eq=False)
class Pyramid:
    """The map of a head from zoom `base` to the coarsest, and what was found on the way.

    Attributes:
        levels: the map at each zoom, from `base` on.
        lse, entropy, peak: of every query; entropy in nats, peak is its largest weight.
    """

    base: int
    levels: tuple[Level, ...]
    lse: Float[Tensor, " q"]
    entropy: Float[Tensor, " q"]
    peak: Float[Tensor, " q"]

    @property
    def top(self) -> int:
        """The coarsest zoom, at which one tile holds the head."""
        return self.base + len(self.levels) - 1

    def level(self, z: int) -> Level:
        """The whole map at one zoom.

        Raises:
            LookError: a zoom that the pyramid does not have.
        """
        if not self.base <= z <= self.top:
            raise LookError(
                f"pyramid: zoom {z} is not in it; it has {self.base} to {self.top}. Make it with more cells, or take "
                "head.tile(z, x, y)."
            )
        return self.levels[z - self.base]

    def tile(self, z: int, x: int, y: int) -> Level:
        """One tile, as `head.tile` computes it.

        Raises:
            LookError: a zoom that the pyramid does not have, or a tile outside of the head.
        """
        level = self.level(z)
        check_tile(z, x, y, *(side << z for side in level.mean.shape))
        return level.cut(x, y)


def top_zoom(queries: int, keys: int) -> int:
    """The coarsest zoom: the first at which one tile holds all weights.

    Example:
        >>> top_zoom(256, 257), top_zoom(131072, 131072)
        (1, 9)
    """
    return (-(-max(queries, keys, 1) // TILE) - 1).bit_length()


def base_zoom(queries: int, keys: int, cells: int) -> int:
    """The finest zoom at which the map has at most `cells` cells on a side; `cells` is 256 or more."""
    return max(0, (-(-max(queries, keys, 1) // cells) - 1).bit_length())


def check_tile(z: int, x: int, y: int, queries: int, keys: int) -> tuple[slice, slice]:
    """The queries and the keys of a tile.

    Raises:
        LookError: there is no such zoom, or no such tile.
    """
    top = top_zoom(queries, keys)
    if not 0 <= z <= top:
        raise LookError(f"tile: zoom {z} does not exist; {queries} x {keys} weights have zooms from 0 to {top}.")
    side = TILE << z
    rows, columns = -(-queries // side), -(-keys // side)
    if not (0 <= x < columns and 0 <= y < rows):
        raise LookError(
            f"tile: there is no tile x={x}, y={y} at zoom {z}; x goes to {columns - 1} (keys) and y to {rows - 1} "
            "(queries)."
        )
    return slice(y * side, min((y + 1) * side, queries)), slice(x * side, min((x + 1) * side, keys))


def tile(
    request: Request,
    z: int,
    x: int,
    y: int,
    lse: Callable[[slice], Float[Tensor, " rows"]],
    between: Callable[[], None] = lambda: None,
) -> Level:
    """One tile of a head, computed from its queries and keys; exact.

    Args:
        lse: gives that of a stretch of queries.
        between: called between blocks; what it raises ends the work.

    Raises:
        LookError: there is no such tile.
    """
    rows, keys = check_tile(z, x, y, request.q.shape[2], request.k.shape[2])
    return cells(request, z, rows, keys, lse(rows), between)


def cells(
    request: Request,
    z: int,
    rows: slice,
    keys: slice,
    lse: Float[Tensor, " rows"],
    between: Callable[[], None] = lambda: None,
) -> Level:
    """The cells of a zoom of some queries and some keys, both in whole cells, whose lse is known."""
    cell = min(1 << z, LARGEST_CELL)
    found = pool(part(request, rows, keys.start, keys.stop), cell, cell, lse=lse, between=between)
    return levels(found, rows.stop - rows.start, keys.stop - keys.start, cell, z + 2 - cell.bit_length())[-1]


def row_lse(request: Request, rows: slice, between: Callable[[], None] = lambda: None) -> Float[Tensor, " rows"]:
    """The lse of a stretch of queries alone."""
    return pool(part(request, rows), 1, LARGEST_CELL, between=between).lse


def pyramid(request: Request, cells: int) -> Pyramid:
    """The map of a head at every zoom at which it has at most `cells` cells on a side, in one pass; exact.

    Raises:
        LookError: cells is below 256.
    """
    queries, keys = request.q.shape[2], request.k.shape[2]
    if cells < TILE:
        raise LookError(f"pyramid: cells={cells}; give the most cells on a side, {TILE} or more.")
    base, top = base_zoom(queries, keys, cells), top_zoom(queries, keys)
    cell = min(1 << base, LARGEST_CELL)
    found = pool(request, cell, cell, entropy=True)
    assert found.entropy is not None
    first = cell.bit_length() - 1
    made = levels(found, queries, keys, cell, top + 1 - first)
    return Pyramid(base, tuple(made[base - first :]), found.lse, found.entropy, found.peak)


def levels(found: Pooled, queries: int, keys: int, cell: int, count: int) -> list[Level]:
    """The levels of a pyramid, each made from the one before; the first is what a pass found in cells of that size."""
    made = [Level(found.mean, found.max, found.seen)]
    for _ in range(count - 1):
        made.append(coarser(made[-1], queries, keys, cell))
        cell *= 2
    return made


def coarser(level: Level, queries: int, keys: int, cell: int) -> Level:
    """The level of cells of twice the side: mean of the means by their number of weights, max of the maxima."""
    rows, columns = level.mean.shape
    counts = extents(queries, cell, level.mean)[:, None] * extents(keys, cell, level.mean)
    even = (0, columns % 2, 0, rows % 2)
    four = ((rows + 1) // 2, 2, (columns + 1) // 2, 2)
    sums = pad(level.mean * counts, even).view(four).sum((1, 3))
    counts = pad(counts, even).view(four).sum((1, 3))
    largest, seen = (pad(side, even).view(four).amax((1, 3)) for side in (level.max, level.seen.to(level.max.dtype)))
    return Level(sums / counts, largest, seen > 0)
