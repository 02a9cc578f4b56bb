"""Where to look: strong pairs, stripes, columns, blocks and changes of a head, found in its map and made exact."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.characters import shortened, visible
from headscope.look.axis import Axis
from headscope.look.kernels.part import part
from headscope.look.kernels.pool import pool
from headscope.look.pyramid import TILE
from headscope.tiles.head_map import Between, HeadMap, nothing
from headscope.tiles.regimes import Block, Change, blocks, changes
from headscope.tiles.stripes import Stripe, exact
from headscope.tiles.survey import Survey, survey

# How many of each kind are listed.
MOST = {"pair": 12, "stripe": 12, "column": 6, "block": 8, "change": 6}
# Queries that are looked at to find the very key of a column.
SAMPLED = 512
# A stripe or a column is listed when a query has so much of its weight on it, in the mean.
LEAST = 0.03


def places(one: HeadMap, between: Between = nothing) -> dict[str, Any]:
    """The places of a head: the strongest of each kind first; of the queries so far while the map fills."""
    if not one.strips.count():
        return {"status": "not yet", "places": []}
    found = survey(one)
    listed = [*columns(one, found, between), *stripes(one, found, between), *pairs(one, found, between)]
    listed += [block_of(one, block) for block in blocks(one)[: MOST["block"]]]
    listed += [change_of(one, change) for change in changes(one)[: MOST["change"]]]
    return {"status": "exact" if one.strips.complete else "partial", "places": listed}


def columns(one: HeadMap, found: Survey, between: Between) -> list[dict[str, Any]]:
    """The keys that many queries attend to."""
    cell, listed = 1 << one.shape.base, []
    for column, _ in found.columns[: MOST["column"]]:
        keys = slice(column * cell, min((column + 1) * cell, one.shape.keys))
        rows = torch.linspace(0, one.shape.queries - 1, min(SAMPLED, one.shape.queries)).long()
        rows = rows[sees(one, rows, keys)]
        lse = one.known_lse(slice(0, int(rows.max()) + 1)) if len(rows) else None
        if lse is None:
            continue
        weights = pool(part(one.call, rows, keys.start, keys.stop), 1, 1, lse=lse[rows], between=between).mean.mean(0)
        key, score = keys.start + int(weights.argmax()), float(weights.max())
        if score > LEAST:
            text = f"{label(one.head.keys, key)} (key {key}) gets {score:.2f} of each query's weight, in the mean"
            listed.append(place(one, "column", score, 0, key, one.shape.queries, text, key=key))
    return sorted(listed, key=lambda one: -one["score"])


def stripes(one: HeadMap, found: Survey, between: Between) -> list[dict[str, Any]]:
    """The stretches of queries that attend at one distance, those with most weight first."""
    kept: list[Stripe] = []
    for run in found.stripes[: 2 * MOST["stripe"]]:
        stripe = exact(one, run, found.shift, between)
        if stripe is not None and stripe.weight > LEAST and not any(overlap(stripe, other) for other in kept):
            kept.append(stripe)
    kept.sort(key=lambda stripe: -stripe.weight * (stripe.rows.stop - stripe.rows.start))
    listed = []
    for rows, offset, weight in kept[: MOST["stripe"]]:
        size = rows.stop - rows.start
        text = (
            f"{offset_text(offset)} from {passage(one.head.queries, rows.start)} on: {weight:.2f} of the weight, in "
            f"the mean of queries {rows.start} to {rows.stop - 1}"
        )
        listed.append(
            place(one, "stripe", weight, rows.start, rows.start + found.shift - offset, size, text, offset=offset)
        )
    return listed


def overlap(stripe: Stripe, other: Stripe) -> bool:
    """Whether two stripes are the same one, found twice."""
    return stripe.offset == other.offset and stripe.rows.start < other.rows.stop and other.rows.start < stripe.rows.stop


def pairs(one: HeadMap, found: Survey, between: Between) -> list[dict[str, Any]]:
    """The strongest weights between distant tokens, not two of the same neighbourhood, column or row."""
    listed: list[dict[str, Any]] = []
    chosen: list[tuple[int, int]] = []
    for pair in found.pairs:
        if len(listed) == MOST["pair"]:
            break
        if any(abs(pair.row - row) <= 2 or abs(pair.column - column) <= 2 for row, column in chosen):
            continue
        chosen.append((pair.row, pair.column))
        cell = one.cell(one.shape.base, pair.column, pair.row, between)
        if cell.query is None or cell.key is None:
            continue
        apart = abs(cell.query + found.shift - cell.key)
        text = f"{label(one.head.queries, cell.query)} → {label(one.head.keys, cell.key)}, {apart} apart"
        top, left = max(cell.query - TILE // 2, 0), max(cell.key - TILE // 2, 0)
        listed.append(place(one, "pair", cell.max, top, left, TILE, text, query=cell.query, key=cell.key))
    return sorted(listed, key=lambda one: -one["score"])


def block_of(one: HeadMap, block: Block) -> dict[str, Any]:
    """A block in the list."""
    first, last = (label(one.head.queries, position) for position in (block.start, block.stop - 1))
    text = f"{first} … {last}: {block.share:.2f} of the weight stays in"
    return place(one, "block", block.share, block.start, block.start, block.stop - block.start, text)


def change_of(one: HeadMap, change: Change) -> dict[str, Any]:
    """A change in the list."""
    what = "the entropy, as a part of the largest possible," if change.what == "entropy" else "the largest weight"
    text = (
        f"from {label(one.head.queries, change.query)} on {what} is {change.after:.2f} instead of {change.before:.2f}"
    )
    size = max(one.shape.queries // 16, TILE)
    top = max(change.query - size // 2, 0)
    return place(one, "change", change.score, top, top, size, text, query=change.query)


def place(
    one: HeadMap, kind: str, score: float, top: int, left: int, size: int, text: str, **where: int
) -> dict[str, Any]:
    """An entry of the list: what, where, and the zoom at which it is seen."""
    if kind in ("column", "stripe"):
        left = max(left - size // 2, 0) if kind == "column" else left
    window = [top, left, min(top + size, one.shape.queries), min(left + size, one.shape.keys)]
    z = min(max((max(window[2] - top, window[3] - left) - 1).bit_length() - 9, 0), one.shape.top)
    return {"kind": kind, "score": score, "z": z, "window": window, "text": text} | where


def sees(one: HeadMap, rows: Tensor, keys: slice) -> Bool[Tensor, " rows"]:
    """Which of some queries may see any of some keys."""
    runs = one.call.runs()
    if runs is None:
        return torch.ones(len(rows), dtype=torch.bool)
    start, stop = (side[0, 0] if side.shape[2] == 1 else side[0, 0, rows] for side in runs)
    return torch.any((start < keys.stop) & (stop > keys.start) & (stop > start), -1).expand(len(rows))


def label(axis: Axis, position: int) -> str:
    """The text of a position in quotation marks; a plain position as its number."""
    text = axis.labels[position]
    return text if axis.kind == "positions" else f"“{shortened(visible(text.strip()), 24)}”"


def passage(axis: Axis, position: int) -> str:
    """The first tokens from a position on, in quotation marks; a plain position as its number."""
    if axis.kind != "tokens":
        return label(axis, position)
    text = "".join(axis.labels[position : position + 12]).replace("▁", " ").replace("Ġ", " ")
    return f"“{shortened(visible(' '.join(text.split())), 32)}”"


def offset_text(offset: int) -> str:
    """A distance in words."""
    names = {0: "the own position", 1: "the position before", -1: "the position after"}
    return names.get(offset, f"{abs(offset)} positions {'back' if offset > 0 else 'ahead'}")
