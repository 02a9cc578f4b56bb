"""Where a head begins to behave otherwise along the sequence, and blocks of positions that attend among themselves."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.tiles.head_map import HeadMap

# Cells of a window on each side of a place, of at most 512 cells.
WINDOW = 12
# A boundary lets through less than this share of what the middle place does.
LEAK = 0.25
# A change is so many times the spread within the windows, and so large a part of the number's range.
SPREADS, PART = 5.0, 0.15


class Block(NamedTuple):
    """Queries and keys `start … stop - 1`, and how much of the weight of these queries stays among them."""

    start: int
    stop: int
    share: float


class Change(NamedTuple):
    """A query from which on a number of the head is another one."""

    query: int
    what: str
    before: float
    after: float
    score: float


def blocks(one: HeadMap) -> list[Block]:
    """Stretches between boundaries that little weight crosses, of a head whose queries are its keys."""
    if one.shape.queries != one.shape.keys or not one.strips.complete:
        return []
    z = max(one.shape.base, one.shape.top - 1)
    count = -(-one.shape.keys // (1 << z))
    levels = [one.strips.level(strip, z, 0, count) for strip in range(one.shape.strips)]
    rows = [level.mean for level in levels if level is not None]
    if count <= 2 * WINDOW or len(rows) < len(levels):
        return []
    mass = torch.cat(rows) * (1 << z)
    # Of the queries right behind a place, how much rests before it; and of those right before, how much behind it.
    before = torch.nn.functional.pad(mass.cumsum(1), (1, 0))
    places = torch.arange(2, count - 2)
    leak = torch.stack([crossing(before, int(place)) for place in places])
    usual = float(leak.median())
    low = (leak < LEAK * usual) & (leak == -torch.nn.functional.max_pool1d(-leak[None], 2 * 2 + 1, 1, 2)[0])
    edges = [0, *(places[low]).tolist(), count]
    edges = [edge for i, edge in enumerate(edges) if i == 0 or edge - edges[i - 1] > 1 or edge == count]
    if len(edges) < 3:
        return []
    inside = [(a, b, float((before[a:b, b] - before[a:b, a]).mean())) for a, b in itertools.pairwise(edges)]
    found = [Block(a << z, min(b << z, one.shape.keys), share) for a, b, share in inside if b - a > 1]
    return sorted(found, key=lambda block: (block.stop - block.start) * block.share, reverse=True)


def crossing(before: Float[Tensor, "rows edges"], place: int) -> Tensor:
    """How much weight goes over a place, from the windows on both sides."""
    behind, ahead = before[place : place + WINDOW], before[max(place - WINDOW, 0) : place]
    return behind[:, place].mean() + (ahead[:, -1] - ahead[:, place]).mean()


def changes(one: HeadMap) -> list[Change]:
    """Places where the entropy, as a part of what it could be, or the largest weight becomes another one."""
    rows = slice(0, one.shape.queries)
    entropy, peak = one.strips.statistic("entropy", rows), one.strips.statistic("peak", rows)
    if entropy is None or peak is None or not one.strips.complete:
        return []
    runs = one.call.runs()
    seen = torch.full_like(entropy, one.shape.keys) if runs is None else runs.counts()[0, 0].expand(len(entropy))
    numbers = {"entropy": entropy / seen.clamp(min=2).log(), "peak": peak}
    step = max(1, one.shape.queries // 512)
    found = [change for what, values in numbers.items() for change in steps_of(what, values, step)]
    return sorted(found, key=lambda change: change.score, reverse=True)


def steps_of(what: str, values: Float[Tensor, " q"], step: int) -> list[Change]:
    """The steps of one number along the queries."""
    cells = values[: len(values) // step * step].view(-1, step).double().mean(1)
    if len(cells) < 4 * WINDOW:
        return []
    windows = cells.unfold(0, WINDOW, 1)
    mean, spread = windows.mean(1), windows.std(1)
    jump = mean[WINDOW:] - mean[:-WINDOW]
    noise = (spread[WINDOW:].square() + spread[:-WINDOW].square()).div(2).sqrt() + 1e-3
    score = jump.abs() / noise
    peak = torch.nn.functional.max_pool1d(score[None], 2 * WINDOW + 1, 1, WINDOW)[0]
    span = float(cells.max() - cells.min())
    places = ((score == peak) & (score > SPREADS) & (jump.abs() > max(PART * span, 0.02))).nonzero()[:, 0].tolist()
    return [
        Change((at + WINDOW) * step, what, float(mean[at]), float(mean[at + WINDOW]), min(float(score[at]), math.inf))
        for at in places
    ]
