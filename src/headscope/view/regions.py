"""Which positions of an axis are the patches of a picture: all of them, a segment, or a part of a text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from headscope.look.axis import Axis
from headscope.look.placeholders import PLACEHOLDER

# Placeholders of a patch have one of these in their text, and stand side by side in at least so many places.
WORDS, FEWEST = ("image", "img", "patch"), 4
# By how much a model may shrink the grid of its picture before the patches stand in the text.
SHRUNK = (1, 2, 4)


class Region(NamedTuple):
    """A picture within an axis: where its patches are, and the picture itself where known.

    Attributes:
        start: the position of its first patch.
        rows, columns: those of the whole picture.
        cells: for each position from `start` on its place in the grid, or None for none; None where all patches of the
            picture stand there in reading order.
    """

    start: int
    rows: int
    columns: int
    thumbnail: bytes | None
    source: str | None
    cells: tuple[int | None, ...] | None = None

    @property
    def stop(self) -> int:
        """The position behind its last patch."""
        return self.start + (self.rows * self.columns if self.cells is None else len(self.cells))

    def on_grid(self, row: Float[np.ndarray, " keys"]) -> Float[np.ndarray, "rows columns"]:
        """The numbers of all positions of an axis where their patches are; NaN for patches that it does not have.

        Example:
            >>> region = regions(Axis.patches(2, 2, cells=[3, None, 0]))[0]
            >>> region.on_grid(np.array([0.5, 0.4, 0.1])).tolist()
            [[0.1, nan], [nan, 0.5]]
        """
        part = row[self.start : self.stop]
        if self.cells is None:
            return part.reshape(self.rows, self.columns)
        found = np.full(self.rows * self.columns, np.nan)
        for number, cell in zip(part, self.cells, strict=True):
            if cell is not None:
                found[cell] = number
        return found.reshape(self.rows, self.columns)

    def cell(self, position: int) -> int | None:
        """The place in the grid of a position of the axis; None where it is no patch of this picture."""
        if not self.start <= position < self.stop:
            return None
        return position - self.start if self.cells is None else self.cells[position - self.start]


def regions(axis: Axis, others: Sequence[Axis] = ()) -> list[Region]:
    """The pictures within an axis.

    Args:
        others: the axes of the other layers: of a model that reads text and pictures, those of the layers that saw the
            picture tell its grid.

    Example:
        >>> regions(Axis.patches(2, 3, before=["[CLS]"]))[0][:3]
        (1, 2, 3)
        >>> regions(Axis.tokens(["a", *4 * ["<image>"], "b"]))[0][:3]
        (1, 2, 2)
    """
    if axis.grid is not None:
        rows, columns = axis.grid
        cells = None if axis.cells is None else filled(axis.cells)
        start = axis.length - (rows * columns if cells is None else len(cells))
        return [Region(start, rows, columns, axis.thumbnail, axis.source, cells)]
    if axis.parts is not None:
        starts = itertools.accumulate((part.length for _, part in axis.parts), initial=0)
        found = zip(starts, (part for _, part in axis.parts), strict=False)
        return [one._replace(start=start + one.start) for start, part in found for one in regions(part, others)]
    return in_text(axis, others) if axis.kind == "tokens" else []


def filled(cells: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Places in a grid from the first patch on: without the class and register tokens before them."""
    return cells[next((i for i, cell in enumerate(cells) if cell is not None), len(cells)) :]


def in_text(axis: Axis, others: Sequence[Axis]) -> list[Region]:
    """Runs of one token that stands for a patch."""
    seen = [other for other in others if other.grid is not None]
    found, start = [], 0
    for label, group in itertools.groupby(axis.labels):
        count = len(list(group))
        patches = PLACEHOLDER.fullmatch(label) and any(word in label.lower() for word in WORDS)
        if count >= FEWEST and patches:
            source = next((other for other in seen if grid_of(count, other) is not None), None)
            grid = square(count) if source is None else grid_of(count, source)
            if grid is not None:
                shown = (source.thumbnail, source.source) if source is not None else (None, None)
                found.append(Region(start, *grid, *shown))
        start += count
    return found


def grid_of(count: int, seen: Axis) -> tuple[int, int] | None:
    """The grid of a picture that was shrunk to `count` patches; None where it cannot come to that."""
    assert seen.grid is not None
    rows, columns = seen.grid
    for times in SHRUNK:
        if rows % times == columns % times == 0 and rows * columns == count * times * times:
            return rows // times, columns // times
    return None


def square(count: int) -> tuple[int, int] | None:
    """The grid of a square of patches; None where `count` is no square number."""
    side = math.isqrt(count)
    return (side, side) if side * side == count else None
