"""Candidates for where to look, from the base level of a map: one look at every strip that is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.look.pyramid import Level
from headscope.tiles.head_map import HeadMap

# A column is a sink when so much of the weight of the queries that see it rests on one cell, and so many times the
# middle column's.
SINK, TIMES = 0.05, 8.0
# A stripe holds so much of the weight of a strip's queries, and so many times its neighbours'.
STRIPE, ABOVE = 0.08, 4.0
NEIGHBOURS = 16
# Distances below this are near; of each strip so many candidates are kept.
FAR, KEPT = 128, 48


class Pair(NamedTuple):
    """A cell with a large weight far from the own position."""

    weight: float
    row: int
    column: int


@dataclass
class Survey:
    """What was found, in cells of the base level.

    Attributes:
        columns: cells of keys that many queries attend to, and the share of the weight there; the largest first.
        pairs: the largest first.
        stripes: for each distance in cells (of two neighbours the smaller) the strips that have a stripe there, with
            the share of the weight of their queries.
        shift: how far the keys are ahead of the queries, in positions.
    """

    shift: int
    columns: list[tuple[int, float]] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    stripes: dict[int, list[tuple[int, float]]] = field(default_factory=dict)


def survey(one: HeadMap) -> Survey:
    """Candidates from the strips that are there."""
    found = Survey(one.shape.keys - one.shape.queries)
    columns = -(-one.shape.keys // (1 << one.shape.base))
    there = [strip for strip in range(one.shape.strips) if one.strips.has(strip)]
    visible = torch.zeros(columns)
    for strip in there:
        level = one.strips.level(strip, one.shape.base, 0, columns)
        if level is None:
            continue
        visible += level.seen.sum(0) * float(1 << one.shape.base)
        rows = strip * (one.shape.queries_of_strip >> one.shape.base)
        found.pairs += far_pairs(one, level, rows, found.shift)
        for distance, share in stripes(one, level, rows, found.shift):
            found.stripes.setdefault(distance, []).append((strip, share))
    found.columns = sinks(one, visible)
    sunk = {column for column, _ in found.columns}
    found.pairs = sorted((pair for pair in found.pairs if pair.column not in sunk), reverse=True)
    return found


def sinks(one: HeadMap, visible: Float[Tensor, " columns"]) -> list[tuple[int, float]]:
    """Columns on which much of the weight of all queries that see them rests."""
    many = visible >= max(256, one.shape.queries // 64)
    share = one.strips.received.to(visible) * (1 << one.shape.base) / visible.clamp(min=1)
    usual = float(share[many].median()) if bool(many.any()) else 0.0
    share = share.masked_fill(~many, 0.0)
    best = share.topk(min(8, len(share)))
    return [
        (column, value)
        for value, column in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        if value > max(SINK, TIMES * usual)
    ]


def distances(level: Level, first: int, shift: int, base: int) -> Tensor:
    """How many cells the keys of a cell lie before its queries, `(rows, columns)`."""
    rows = torch.arange(first, first + len(level.mean)) + (shift >> base)
    return rows[:, None] - torch.arange(level.mean.shape[1])


def far_pairs(one: HeadMap, level: Level, first: int, shift: int) -> list[Pair]:
    """The cells of a strip with the largest weights, away from the own position."""
    near = max(2, FAR >> one.shape.base)
    values = level.max.masked_fill(distances(level, first, shift, one.shape.base).abs() <= near, 0.0)
    best = values.flatten().topk(min(KEPT, values.numel()))
    width = values.shape[1]
    return [
        Pair(value, first + at // width, at % width)
        for value, at in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        if value > 0
    ]


def stripes(one: HeadMap, level: Level, first: int, shift: int) -> list[tuple[int, float]]:
    """Distances at which much more of a strip's weight lies than at those around; each with its share."""
    apart = distances(level, first, shift, one.shape.base)
    least = int(apart.min())
    sums = torch.zeros(int(apart.max()) - least + 2)
    sums.index_add_(0, (apart - least).flatten(), (level.mean * (1 << one.shape.base)).flatten())
    share = sums / len(level.mean)
    # A stripe goes through two cells of every row, as a rule.
    both = share[:-1] + share[1:]
    around = torch.nn.functional.pad(both, (NEIGHBOURS, NEIGHBOURS)).unfold(0, 2 * NEIGHBOURS + 1, 1)
    usual, peak = around.median(1).values, torch.nn.functional.max_pool1d(both[None], 5, 1, 2)[0]
    found = (both == peak) & (both > STRIPE) & (both > ABOVE * usual)
    places = found.nonzero()[:, 0]
    best = both[places].topk(min(4, len(places)))
    chosen = places[best.indices].tolist()
    return [(at + least, value) for at, value in zip(chosen, best.values.tolist(), strict=True)]
