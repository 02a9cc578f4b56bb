"""Runs of keys, cut into tiles: which rows go with which keys.

Rows whose runs jump (a new document, the end of a sequence) begin a new tile, so that the hulls stay tight.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headscope.attention.masks.runs import Runs
from headscope.attention.paths.tiled.tile import Ints, Tile

# Runs that move by at most this many keys from one row to the next belong to one band.
SMOOTH = 16
# Segments of fewer rows than this are taken together: a call costs about as much as so many rows.
SHORT = 48
# Rows of a masked tile over a hull of a few hundred keys, and the most numbers in the mask of a wide one.
ROWS, MASK = 64, 2**20
# Rows of the triangles that a bias is added to, so that the block of bias stays small, and of the rectangles, of which
# a copy with the rows turned around is made.
TRIANGLE_ROWS, RECTANGLE_ROWS = 512, 2048
# Keys, times heads, that the copies of a repeated tile hold together at most: enough to hide the cost of a call, and
# few enough that what the kernel returns lies in memory that it had before, not in fresh pages.
REPEATED_KEYS = 2**15


Rows = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The tiles of one attention call, and the rows that are left.

    Attributes:
        groups: tiles that share their rows stand together and are merged; each group has other rows.
        area: query-key pairs that are computed, over all items and heads.
        blank: items, heads and rows that are in no group: they see nothing.
        fully_masked: items, heads and rows that see nothing although they are in a group.
        masks: a place where a kernel keeps the few masks of its tiles from one call to the next.
    """

    groups: tuple[tuple[Tile, ...], ...]
    area: int
    blank: tuple[Rows, ...]
    fully_masked: tuple[Rows, ...]
    masks: dict[tuple[bytes, object], Any] = field(default_factory=dict, compare=False)

    @property
    def tiles(self) -> int:
        """How many tiles there are."""
        return sum(map(len, self.groups))


def schedule(runs: Runs, items: int, heads: int, share: int, queries: int, *, square: bool, repeat: bool) -> Schedule:
    """The tiles that cover the runs of `items` x `heads` planes of `queries` rows.

    Args:
        share: how many query heads read the same keys.
        square: large tiles stay whole; without it triangles become rows of rectangles, each with a small triangle at
            its end, and rectangles are cut too.
        repeat: tiles that follow each other with one mask become one tile with copies.
    """
    if 0 in (items, heads, queries):
        return Schedule((), 0, (), ())
    start, stop = (side.cpu().numpy() for side in runs)
    groups: list[tuple[Tile, ...]] = []
    blank: list[Rows] = []
    fully_masked: list[Rows] = []
    area = 0
    for item_range in alike(start, stop, items):
        item = item_range.start if len(start) > 1 else 0
        for head_range in whole_groups(alike(start[item], stop[item], heads), share):
            head = head_range.start if start.shape[1] > 1 else 0
            begin, end = spread(start[item, head], queries), spread(stop[item, head], queries)
            plane = plane_tiles(begin, end, item_range, head_range, square)
            plane = repeated(plane) if repeat else plane
            planes = (item_range.stop - item_range.start) * (head_range.stop - head_range.start)
            area += planes * sum((t.rows.stop - t.rows.start) * t.keys * t.repeat for group in plane for t in group)
            covered = np.zeros(queries, dtype=np.bool_)
            for group in plane:
                covered[group[0].all_rows] = True
            sees = (end > begin).any(1)
            blank += [(item_range, head_range, rows) for rows in ranges(~covered)]
            fully_masked += [(item_range, head_range, rows) for rows in ranges(covered & ~sees)]
            groups += plane
    return Schedule(tuple(groups), area, tuple(blank), tuple(fully_masked))


def ranges(chosen: NDArray[np.bool_]) -> list[slice]:
    """The ranges of rows that are chosen."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8)))
    return [slice(a, b) for a, b in edges.reshape(-1, 2).tolist()]


def alike(start: Ints, stop: Ints, count: int) -> list[slice]:
    """Ranges of neighbours along the first axis that have the same runs."""
    if len(start) == 1:
        return [slice(0, count)]
    same = ((start[1:] == start[:-1]) & (stop[1:] == stop[:-1])).reshape(count - 1, -1).all(1)
    bounds = [0, *(np.flatnonzero(~same) + 1).tolist(), count]
    return [slice(a, b) for a, b in pairwise(bounds)]


def whole_groups(ranges: list[slice], share: int) -> list[slice]:
    """Ranges of heads, cut so that each holds whole groups of `share` heads or lies within one."""
    cut: list[slice] = []
    for piece in ranges:
        inner = piece.start + -piece.start % share, piece.stop - piece.stop % share
        bounds = sorted({piece.start, piece.stop, *(x for x in inner if piece.start < x < piece.stop)})
        cut += [slice(a, b) for a, b in pairwise(bounds)]
    return cut


def spread(side: Ints, queries: int) -> Ints:
    """Runs `(q|1, r)` as `(q, r)`."""
    return np.broadcast_to(side, (queries, side.shape[1]))


def plane_tiles(start: Ints, stop: Ints, items: slice, heads: slice, square: bool) -> list[tuple[Tile, ...]]:
    """The tiles of one item and head: groups with the same rows."""
    groups: list[tuple[Tile, ...]] = []
    for first, last, regular in segments(start, stop):
        begin, end = start[first:last], stop[first:last]
        if (end <= begin).all():
            continue
        tiles = regular_tiles(begin, end, first, items, heads, square) if regular else []
        groups += tiles or band_tiles(begin, end, first, items, heads)
    return groups


def repeated(groups: list[tuple[Tile, ...]]) -> list[tuple[Tile, ...]]:
    """The same tiles, those that are copies of the one above them written as one tile."""
    found: list[tuple[Tile, ...]] = []
    last: Tile | None = None
    for group in groups:
        if len(group) == 1 and last is not None and group[0].follows(last):
            tile, (head,) = group[0], found[-1]
            step = tile.spans[0][0] - last.spans[0][0]
            heads = tile.heads.stop - tile.heads.start
            if (head.repeat == 1 or head.step == step) and heads * tile.keys * (head.repeat + 1) <= REPEATED_KEYS:
                found[-1] = (replace(head, repeat=head.repeat + 1, step=step),)
                last = tile
                continue
        found.append(group)
        last = group[0] if len(group) == 1 else None
    return found


def segments(start: Ints, stop: Ints) -> list[tuple[int, int, bool]]:
    """Ranges of rows `(first, last, regular)` between jumps of the runs.

    Short ones are taken together and are not regular.
    """
    rows = len(start)
    jump = (np.abs(np.diff(start, axis=0)) > SMOOTH) | (np.abs(np.diff(stop, axis=0)) > SMOOTH)
    jump |= np.diff((stop > start).astype(np.int8), axis=0) != 0
    bounds = [0, *(np.flatnonzero(jump.any(1)) + 1).tolist(), rows]
    found: list[tuple[int, int, bool]] = []
    pending = None
    for first, last in pairwise(bounds):
        if last - first >= SHORT or (stop[first] <= start[first]).all():
            if pending is not None:
                found.append((pending, first, False))
                pending = None
            found.append((first, last, True))
        else:
            pending = first if pending is None else pending
            if last - pending >= 2 * SHORT:
                found.append((pending, last, False))
                pending = None
    if pending is not None:
        found.append((pending, rows, False))
    return [piece for piece in found if piece[1] > piece[0]]


def regular_tiles(
    start: Ints, stop: Ints, offset: int, items: slice, heads: slice, square: bool
) -> list[tuple[Tile, ...]]:
    """Tiles without a mask for a rectangle, or a rectangle and a triangle, of one run.

    None where the rows are neither.
    """
    used = (stop > start).any(0)
    if used.sum() != 1:
        return []
    begin, end = start[:, used][:, 0], stop[:, used][:, 0]
    rows = slice(offset, offset + len(begin))
    if (begin != begin[0]).any():
        return []
    first, last = int(begin[0]), int(end[-1])
    if (end == end[0]).all():
        step = len(begin) if square else RECTANGLE_ROWS
        tops = range(rows.start, rows.stop, step)
        parts = [slice(top, min(top + step, rows.stop)) for top in tops]
        return [(Tile(items, heads, part, ((first, last),), "full"),) for part in parts]
    if (np.diff(end) != 1).any():
        return []
    step = len(begin) if square else TRIANGLE_ROWS
    groups: list[tuple[Tile, ...]] = []
    for top in range(0, len(begin), step):
        part = slice(offset + top, offset + min(top + step, len(begin)))
        stop_here = int(end[part.stop - 1 - offset])
        corner = stop_here - (part.stop - part.start)
        triangle = Tile(items, heads, part, ((corner, stop_here),), "causal")
        groups.append(
            (triangle,) if corner == first else (Tile(items, heads, part, ((first, corner),), "full"), triangle)
        )
    return groups


def band_tiles(start: Ints, stop: Ints, offset: int, items: slice, heads: slice) -> list[tuple[Tile, ...]]:
    """Masked tiles over blocks of rows; full ones where it happens that every row sees the whole hull."""
    widths = (stop - start).sum(1)
    widest = max(1, int(widths.max()))
    step = max(ROWS, min(4 * ROWS, widest // 8, MASK // widest))
    groups: list[tuple[Tile, ...]] = []
    for first in range(0, len(start), step):
        begin, end = start[first : first + step], stop[first : first + step]
        spans = hull(begin, end)
        if not spans:
            continue
        rows = slice(offset + first, offset + first + len(begin))
        keys = sum(b - a for a, b in spans)
        whole = bool((widths[first : first + step] == keys).all())
        tile = (
            Tile(items, heads, rows, spans, "full")
            if whole
            else Tile(items, heads, rows, spans, "masked", *along(spans, begin, end))
        )
        groups.append((tile,))
    return groups


def along(spans: tuple[tuple[int, int], ...], start: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """Runs counted along the keys of the spans, as if these stood side by side; empty runs at 0."""
    firsts = np.array([first for first, _ in spans])
    before = np.cumsum([0, *(last - first for first, last in spans)])[:-1]
    span = np.maximum(np.searchsorted(firsts, start, side="right") - 1, 0)
    shift = np.where(stop > start, before[span] - firsts[span], -start)
    return (start + shift).astype(np.int32), np.where(stop > start, stop + shift, 0).astype(np.int32)


def hull(start: Ints, stop: Ints) -> tuple[tuple[int, int], ...]:
    """The smallest spans of keys that hold every run of these rows, slot by slot; spans that meet become one."""
    spans: list[tuple[int, int]] = []
    for r in range(start.shape[1]):
        used = stop[:, r] > start[:, r]
        if used.any():
            spans.append((int(start[used, r].min()), int(stop[used, r].max())))
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        # A gap narrower than a few keys costs less than a span of its own.
        if merged and first <= merged[-1][1] + SMOOTH:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)
