"""The map of one head: every tile, cell, row, column and track of it, from what is on disk or computed on request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.errors import LookError
from headscope.look.head import Head
from headscope.look.kernels.part import part
from headscope.look.kernels.pool import LARGEST_CELL, pool
from headscope.look.pyramid import TILE, Level, cells, check_tile, row_lse
from headscope.tiles.codes import Codes, encode
from headscope.tiles.sample import Estimate
from headscope.tiles.strip_file import Shape
from headscope.tiles.strips import Strips

Between = Callable[[], None]
EMPTY, EXACT, ESTIMATE, NOT_YET = range(4)
# Weights of a cell that are computed when somebody asks for it: a tenth of a second or two.
MOST_IN_CELL = 2**26
# Bands of 256 queries whose lse is kept: 16 MB of float32.
BANDS = 16_384


def nothing() -> None:
    """Let the work go on."""


class MapTile(NamedTuple):
    """One tile as it is sent: two planes of codes, and what they are.

    Attributes:
        exact: how many leading rows of cells are exact.
        error: the standard error of the estimated means, root mean square over the cells.
    """

    status: int
    rows: int
    columns: int
    exact: int
    error: float
    generation: int
    mean: Codes | None
    max: Codes | None


class Cell(NamedTuple):
    """One cell of any zoom, and the pair that holds its max."""

    queries: slice
    keys: slice
    mean: float
    max: float
    query: int | None
    key: int | None
    masked: bool
    exact: bool


class HeadMap:
    """The map of one head; threads may ask it at the same time.

    Args:
        folder: where its levels are kept.
        proven: whether the head's numbers are known to be those that were written; before, nothing made from them is
            kept.
    """

    def __init__(self, head: Head, folder: Path, proven: Callable[[], bool] = lambda: True) -> None:
        self.head, self.call, self.proven = head, head.stored_call, proven
        self.shape = Shape(len(head.q), len(head.k))
        self.strips = Strips(folder, self.shape)
        self.estimate: Estimate | None = None
        # What a survey found in each strip: it is read once, however often a client asks where to look.
        self.surveyed: dict[int, Any] = {}
        self._bands: OrderedDict[int, Tensor] = OrderedDict()
        self._lock = Lock()

    @property
    def generation(self) -> int:
        """Another one whenever a tile of the levels on disk may look different."""
        return self.strips.count() + (self.estimate is not None)

    @cached_property
    def visible(self) -> tuple[list[int], list[int]]:
        """For each band of 256 queries the first and the last tile of keys in which one sees anything."""
        bands = -(-self.shape.queries // TILE)
        last = -(-self.shape.keys // TILE) - 1
        runs = self.call.runs()
        if runs is None:
            return [0] * bands, [last] * bands
        start, stop = (side[0, 0].expand(self.shape.queries, -1) for side in runs)
        empty = stop <= start
        padding = (0, -self.shape.queries % TILE)
        low = torch.nn.functional.pad(start.masked_fill(empty, self.shape.keys).amin(1), padding, value=self.shape.keys)
        high = torch.nn.functional.pad(stop.masked_fill(empty, 0).amax(1), padding, value=0)
        first, end = low.view(-1, TILE).amin(1), high.view(-1, TILE).amax(1)
        hidden = end <= first
        return (first // TILE).masked_fill(hidden, 0).tolist(), ((end - 1) // TILE).masked_fill(hidden, -1).tolist()

    def is_empty(self, z: int, x: int, y: int) -> bool:
        """Whether the mask hides all of a tile; it may also hide all of one of which this is not known beforehand."""
        first, last = self.visible
        bands = range(y << z, min((y + 1) << z, len(first)))
        return not any(first[band] >> z <= x <= last[band] >> z for band in bands if first[band] <= last[band])

    def hides(self, rows: slice, keys: slice) -> bool:
        """Whether the mask hides all of some keys from all of some queries."""
        runs = self.call.runs()
        if runs is None:
            return False
        start, stop = (side[0, 0] if side.shape[2] == 1 else side[0, 0, rows] for side in runs)
        return not bool(((start < keys.stop) & (stop > keys.start) & (stop > start)).any())

    def lse(self, rows: slice, between: Between = nothing) -> Float[Tensor, " rows"]:
        """The lse of a stretch of queries: from the pass, from the recording, or computed now."""
        known = self.known_lse(rows)
        if known is not None:
            return known
        bands = range(rows.start // TILE, -(-rows.stop // TILE))
        with self._lock:
            have = {band: self._bands[band] for band in bands if band in self._bands}
        missing = [band for band in bands if band not in have]
        if missing:
            some = slice(missing[0] * TILE, min((missing[-1] + 1) * TILE, self.shape.queries))
            found = row_lse(self.call, some, between)
            have |= {missing[0] + i: one for i, one in enumerate(torch.split(found, TILE))}
            with self._lock:
                self._bands |= have
                while len(self._bands) > BANDS:
                    self._bands.popitem(last=False)
        first = bands.start * TILE
        return torch.cat([have[band] for band in bands])[rows.start - first : rows.stop - first]

    def known_lse(self, rows: slice) -> Float[Tensor, " rows"] | None:
        """The lse of a stretch of queries where no more than a band has to be computed for it."""
        there = self.strips.statistic("lse", rows)
        if there is not None and not bool(there.isnan().any()):
            return there
        known = self.head.known_lse
        return None if known is None else known[rows]

    def tile(self, z: int, x: int, y: int, bits: int, between: Between = nothing) -> MapTile:
        """One tile.

        Raises:
            LookError: there is no such tile.
        """
        rows, keys = check_tile(z, x, y, self.shape.queries, self.shape.keys)
        size = -(-(rows.stop - rows.start) // (1 << z)), -(-(keys.stop - keys.start) // (1 << z))
        if self.is_empty(z, x, y):
            return MapTile(EMPTY, size[0], size[1], size[0], 0.0, 0, None, None)
        if z >= self.shape.base:
            return self._assembled(z, x, y, size, bits)
        level = cells(self.call, z, rows, keys, self.lse(rows, between), between)
        return self._coded(level, None, EXACT, size[0], 0.0, 0, bits)

    def level(self, z: int, x: int, y: int) -> tuple[Level, Tensor, int, float]:
        """A tile of a level on disk: its numbers, which rows of cells are known, how many are exact, and the error."""
        rows, keys = check_tile(z, x, y, self.shape.queries, self.shape.keys)
        top, left = y * TILE, x * TILE
        height, width = (-(-(side.stop - side.start) // (1 << z)) for side in (rows, keys))
        step = TILE >> (z - self.shape.base)
        strips = range(top // step, -(-(top + height) // step))
        out, known = self.strips.area(strips, z, left, left + width)
        out.seen[~known] = True
        exact = int(known.cumprod(0).sum())
        guess, error = self.estimate, 0.0
        if guess is not None and z >= guess.first and not bool(known.all()):
            rows_, columns = slice(top, top + height), slice(left, left + width)
            level, error = guess.levels[z - guess.first], guess.error(z, rows_, columns)
            for side, other in zip(out, level, strict=True):
                side[~known] = other[rows_, columns][~known].to(side.dtype)
            known[:] = True
        return out, known, exact, error

    def _assembled(self, z: int, x: int, y: int, size: tuple[int, int], bits: int) -> MapTile:
        """A tile of a level on disk as it is sent."""
        generation = self.generation
        level, known, exact, error = self.level(z, x, y)
        if exact == size[0]:
            return self._coded(level, None, EXACT, exact, 0.0, 0, bits)
        if not bool(known.any()):
            return MapTile(NOT_YET, size[0], size[1], 0, 0.0, generation, None, None)
        return self._coded(level, known, ESTIMATE, exact, error, generation, bits)

    def _coded(
        self, level: Level, known: Tensor | None, status: int, exact: int, error: float, generation: int, bits: int
    ) -> MapTile:
        """A tile with its numbers as codes."""
        rows, columns = level.mean.shape
        if known is None and not bool(level.seen.any()):
            return MapTile(EMPTY, rows, columns, exact, 0.0, 0, None, None)
        where = None if known is None else known[:, None].expand_as(level.seen)
        mean, largest = (encode(side, level.seen, where, bits=bits) for side in (level.mean, level.max))
        return MapTile(status, rows, columns, exact, error, generation, mean, largest)

    def cell(self, z: int, x: int, y: int, between: Between = nothing) -> Cell:
        """One cell, from q and k; from the tiles where it has too many weights, or its queries' lse would take long.

        Raises:
            LookError: there is no such cell.
        """
        check_tile(z, x // TILE, y // TILE, self.shape.queries, self.shape.keys)
        rows = slice(y << z, min((y + 1) << z, self.shape.queries))
        keys = slice(x << z, min((x + 1) << z, self.shape.keys))
        if rows.start >= rows.stop or keys.start >= keys.stop:
            raise LookError(
                f"cell: there is no cell x={x}, y={y} at zoom {z}; the head is {self.shape.queries} x "
                f"{self.shape.keys} weights."
            )
        if self.hides(rows, keys):
            return Cell(rows, keys, 0.0, 0.0, None, None, True, True)
        many = (rows.stop - rows.start) * (keys.stop - keys.start) > MOST_IN_CELL
        if z >= self.shape.base and (many or self.known_lse(rows) is None):
            level, known, exact, _ = self.level(z, x // TILE, y // TILE)
            at = y % TILE, x % TILE
            mean, largest = (float(side[at]) if known[at[0]] else float("nan") for side in (level.mean, level.max))
            return Cell(rows, keys, mean, largest, None, None, False, at[0] < exact)
        lse, side = self.lse(rows, between), min(1 << z, LARGEST_CELL)
        whole = cells(self.call, z, rows, keys, lse, between)
        parts = pool(part(self.call, rows, keys.start, keys.stop), side, side, lse=lse, between=between).max
        i, j = divmod(int(parts.argmax()), parts.shape[1])
        top, left = rows.start + i * side, keys.start + j * side
        inner = slice(top, min(top + side, rows.stop))
        fine = pool(part(self.call, inner, left, min(left + side, keys.stop)), 1, 1, lse=self.lse(inner)).max
        i, j = divmod(int(fine.argmax()), fine.shape[1])
        return Cell(rows, keys, float(whole.mean[0, 0]), float(whole.max[0, 0]), top + i, left + j, False, True)

    def row(self, query: int) -> Float[Tensor, " k"]:
        """The weights of one query over all keys."""
        rows = slice(query, query + 1)
        return pool(part(self.call, rows), 1, 1, lse=self.lse(rows)).mean[0]

    def column(self, key: int, between: Between = nothing) -> Float[Tensor, " q"] | None:
        """The weight of every query on one key; None until every query's lse is known."""
        rows = slice(0, self.shape.queries)
        lse = self.known_lse(rows)
        if lse is None:
            return None
        return pool(part(self.call, rows, key, key + 1), 1, 1, lse=lse, between=between).mean[:, 0]
