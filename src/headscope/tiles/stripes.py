"""Stripes of a map: stretches of queries that attend at one distance, such as to an earlier copy of what they read.

Every strip is looked at in pieces of a few rows of cells. A piece has a stripe at a distance where much more of its
weight lies than at those around. Pieces that follow one another are joined; then the distance in positions, and where
the stripe begins and ends, are found from single weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headscope.look.kernels.part import part
from headscope.look.kernels.pool import pool
from headscope.look.pyramid import Level
from headscope.tiles.head_map import Between, HeadMap

# Rows of cells of a piece: 512 queries of 100 000. So many peaks of a piece are kept.
PIECE, PEAKS = 32, 4
# A stripe holds so much of the weight of a piece's queries, and so many times what lies at the distances around.
SHARE, ABOVE, AROUND = 0.08, 4.0, 16
# Blocks of queries, and queries of a block, that are looked at for the distance in positions.
BLOCKS, ROWS = 24, 16
# Queries whose weights at one distance are computed together: the diagonal of a block that is as wide.
TOGETHER = 128


class Peak(NamedTuple):
    """A piece, counted over the map, with much of its weight at a distance in cells (of two neighbours the smaller)."""

    piece: int
    distance: int
    share: float


@dataclass
class Joined:
    """Pieces `first … last` with a stripe at one distance, and the sum of their shares."""

    distance: int
    first: int
    last: int
    pieces: int
    mass: float


class Stripe(NamedTuple):
    """Queries that attend `offset` positions back, and their mean weight there."""

    rows: slice
    offset: int
    weight: float


def distances(level: Level, first: int, shift: int, base: int) -> Int64[Tensor, "rows columns"]:
    """How many cells the keys of a cell lie before its queries; `first` is the level's first row of cells."""
    rows = torch.arange(first, first + len(level.mean)) + (shift >> base)
    return rows[:, None] - torch.arange(level.mean.shape[1])


def peaks(level: Level, first: int, shift: int, base: int) -> list[Peak]:
    """The distances at which much more of a piece's weight lies than at those around; for each piece of a strip."""
    apart = distances(level, first, shift, base)
    rows = len(apart)
    least, pieces = int(apart.min()), -(-rows // PIECE)
    number = torch.arange(rows) // PIECE
    width = int(apart.max()) - least + 2
    sums = torch.zeros(pieces * width)
    sums.index_add_(0, (number[:, None] * width + apart - least).flatten(), (level.mean * (1 << base)).flatten())
    share = sums.view(pieces, width) / number.bincount()[:, None]
    # A stripe goes through two cells of every row, as a rule.
    both = share[:, :-1] + share[:, 1:]
    highest = torch.nn.functional.max_pool1d(both, 5, 1, 2)
    found: list[Peak] = []
    for piece, at in ((both == highest) & (both > SHARE)).nonzero().tolist():
        usual = both[piece, max(at - AROUND, 0) : at + AROUND + 1].median()
        if both[piece, at] > ABOVE * usual:
            found.append(Peak(first // PIECE + piece, at + least, float(both[piece, at])))
    found.sort(key=lambda peak: (peak.piece, -peak.share))
    return [peak for i, peak in enumerate(found) if i < PEAKS or found[i - PEAKS].piece != peak.piece]


def joined(found: Iterable[Peak]) -> list[Joined]:
    """Peaks of one distance that follow one another, those with most weight first.

    A gap may be as long as what is joined already, so that a head that always looks at one distance has one stripe.
    """
    runs: list[Joined] = []
    for piece, distance, share in sorted(found):
        for run in runs:
            if abs(run.distance - distance) <= 1 and run.last < piece <= run.last + max(2, run.pieces):
                run.last, run.pieces, run.mass = piece, run.pieces + 1, run.mass + share
                break
        else:
            runs.append(Joined(distance, piece, piece, 1, share))
    return sorted(runs, key=lambda run: -run.mass)


def exact(one: HeadMap, run: Joined, shift: int, between: Between) -> Stripe | None:
    """A stripe with its distance, beginning and end in positions.

    None where the queries' lse is not known yet, and where they see so few keys that any would get as much.
    """
    piece = PIECE << one.shape.base
    first, stop = run.first * piece, min((run.last + 1) * piece, one.shape.queries)
    offset = exact_offset(one, run.distance, slice(first, stop), shift, between)
    # It may begin in the piece before, and end in the one behind; in the middle there is nothing to find.
    inner = min(first + 2 * piece, stop), max(stop - 2 * piece, first)
    rows = torch.arange(max(first - piece, 0), min(stop + piece, one.shape.queries))
    rows = rows[(rows < inner[0]) | (rows >= inner[1])]
    rows = rows[(rows + shift >= offset) & (rows + shift - offset < one.shape.keys)]
    weights = at_offset(one, rows, offset, shift, between)
    if weights is None or not len(rows):
        return None
    inside = (rows >= first) & (rows < stop)
    least = float(weights[inside].mean()) / 2 if bool(inside.any()) else 0.0
    begin, end = densest(weights - least)
    found = Stripe(slice(int(rows[begin]), int(rows[end - 1]) + 1), offset, float(weights[begin:end].mean()))
    return found if found.weight > ABOVE * even(one, found.rows) else None


def even(one: HeadMap, rows: slice) -> float:
    """The mean weight of some queries on any key, if they attended to all that they see alike."""
    runs = one.call.runs()
    if runs is None:
        return 1 / one.shape.keys
    start, stop = (side[0, 0] if side.shape[2] == 1 else side[0, 0, rows] for side in runs)
    return float((stop - start).sum(-1).clamp(min=1).double().reciprocal().mean())


def exact_offset(one: HeadMap, distance: int, rows: slice, shift: int, between: Between) -> int:
    """The distance in positions that has most weight, near one in cells."""
    cell = 1 << one.shape.base
    low, high = (distance - 1) * cell, (distance + 3) * cell
    sums = torch.zeros(high - low + 1, dtype=torch.float64)
    counts = torch.zeros_like(sums)
    last = max(rows.stop - ROWS, rows.start)
    for first in sorted(set(torch.linspace(rows.start, last, BLOCKS).long().tolist())):
        some = slice(first, min(first + ROWS, one.shape.queries))
        left, right = max(first + shift - high, 0), min(some.stop + shift - low, one.shape.keys)
        lse = one.known_lse(some)
        if left >= right or lse is None:
            continue
        weights = pool(part(one.call, some, left, right), 1, 1, lse=lse, between=between).mean
        apart = torch.arange(some.start, some.stop)[:, None] + shift - torch.arange(left, right)
        inside = (apart >= low) & (apart <= high)
        sums.index_add_(0, apart[inside] - low, weights[inside].double())
        counts.index_add_(0, apart[inside] - low, torch.ones_like(weights[inside], dtype=torch.float64))
    return low + int((sums / counts.clamp(min=1)).argmax())


def at_offset(
    one: HeadMap, rows: Int64[Tensor, " rows"], offset: int, shift: int, between: Between
) -> Float[Tensor, " rows"] | None:
    """The weight of each of some queries, ascending, on the key that lies `offset` positions before it."""
    found = []
    sizes = [size for size in (rows // TOGETHER).bincount().tolist() if size]
    for some in torch.split(rows, sizes):
        first, stop = int(some[0]), int(some[-1]) + 1
        lse = one.known_lse(slice(first, stop))
        if lse is None:
            return None
        left, right = first + shift - offset, stop + shift - offset
        weights = pool(part(one.call, some, left, right), 1, 1, lse=lse[some - first], between=between).mean
        found.append(weights.gather(1, (some - first)[:, None])[:, 0])
    return torch.cat(found) if found else rows.new_zeros(0, dtype=torch.float32)


def densest(values: Float[Tensor, " n"]) -> tuple[int, int]:
    """The stretch `begin … end - 1` with the largest sum; Kadane's algorithm, in one go.

    Example:
        >>> densest(torch.tensor([-1.0, 2.0, -1.0, 2.0, -3.0]))
        (1, 4)
    """
    before = torch.cat([values.new_zeros(1, dtype=torch.float64), values.double().cumsum(0)])
    lowest = before.cummin(0)
    end = int((before[1:] - lowest.values[:-1]).argmax()) + 1
    return int(lowest.indices[end - 1]), end
