"""Which positions of an axis are the patches of a picture: all of them, a segment, or a part of a text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from headscope.look.axis import Axis
from headscope.look.placeholders import PLACEHOLDER

# Placeholders of a patch have one of these in their text, and stand side by side in at least so many places.
WORDS, FEWEST = ("image", "img", "patch"), 4
# By how much a model may shrink the grid of its picture before the patches stand in the text.
SHRUNK = (1, 2, 4)


class Region(NamedTuple):
    """A picture within an axis: its patches from `start` on in reading order, and the picture itself where known."""

    start: int
    rows: int
    columns: int
    thumbnail: bytes | None
    source: str | None

    @property
    def stop(self) -> int:
        """The position behind its last patch."""
        return self.start + self.rows * self.columns


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
        return [Region(axis.length - rows * columns, rows, columns, axis.thumbnail, axis.source)]
    if axis.parts is not None:
        starts = itertools.accumulate((part.length for _, part in axis.parts), initial=0)
        found = zip(starts, (part for _, part in axis.parts), strict=False)
        return [one._replace(start=start + one.start) for start, part in found for one in regions(part, others)]
    return in_text(axis, others) if axis.kind == "tokens" else []


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
