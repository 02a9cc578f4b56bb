"""Candidates for where to look, from the base level of a map: one look at every strip that is there."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.look.pyramid import Level
from headscope.tiles.head_map import HeadMap
from headscope.tiles.stripes import Joined, Peak, distances, joined, peaks

# A column is a sink when so much of the weight of the queries that see it rests on one cell, and so many times the
# middle column's.
SINK, TIMES = 0.05, 8.0
# Distances below this are near; of each strip so many candidates are kept.
FAR, KEPT = 128, 48


class Pair(NamedTuple):
    """A cell with a large weight far from the own position."""

    weight: float
    row: int
    column: int


class Surveyed(NamedTuple):
    """The candidates of one strip, and for how many queries of it each column of cells is visible."""

    visible: Float[Tensor, " columns"]
    pairs: list[Pair]
    peaks: list[Peak]


class Survey(NamedTuple):
    """What was found, in cells of the base level.

    Attributes:
        columns: cells of keys that many queries attend to, and the share of the weight there; the largest first.
        pairs: the largest first.
        stripes: those with most weight first.
        shift: how far the keys are ahead of the queries, in positions.
    """

    shift: int
    columns: list[tuple[int, float]]
    pairs: list[Pair]
    stripes: list[Joined]


def survey(one: HeadMap) -> Survey:
    """Candidates from the strips that are there; each strip is read once."""
    shift = one.shape.keys - one.shape.queries
    found = []
    for strip in range(one.shape.strips):
        if not one.strips.has(strip):
            one.surveyed.pop(strip, None)
            continue
        if strip not in one.surveyed:
            level = one.strips.level(strip, one.shape.base, 0, one.shape.columns)
            if level is None:
                continue
            one.surveyed[strip] = surveyed(one, level, strip, shift)
        found.append(one.surveyed[strip])
    visible = torch.stack([part.visible for part in found]).sum(0) if found else torch.zeros(one.shape.columns)
    columns = sinks(one, visible)
    sunk = {column for column, _ in columns}
    pairs = sorted((pair for part in found for pair in part.pairs if pair.column not in sunk), reverse=True)
    return Survey(shift, columns, pairs, joined(peak for part in found for peak in part.peaks))


def surveyed(one: HeadMap, level: Level, strip: int, shift: int) -> Surveyed:
    """The candidates of one strip."""
    rows, base = strip * (one.shape.queries_of_strip >> one.shape.base), one.shape.base
    visible = level.seen.sum(0) * float(1 << base)
    return Surveyed(visible, far_pairs(one, level, rows, shift), peaks(level, rows, shift, base))


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
