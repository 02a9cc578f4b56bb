"""The answers in JSON and in bytes, as docs/tiles.md lays them out."""

from __future__ import annotations

import math
import struct
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from headscope.errors import LookError
from headscope.files.digests import bytes_of
from headscope.look.axis import Axis
from headscope.look.kernels.gather import chosen
from headscope.look.kernels.part import part
from headscope.look.kernels.pool import pool
from headscope.look.pyramid import TILE
from headscope.server.bounds import HeadName
from headscope.server.library import Entry
from headscope.tiles.background import Status
from headscope.tiles.head_map import Between, Cell, HeadMap, MapTile, nothing
from headscope.tiles.strip_file import FINE
from headscope.view.page import installed

MAGIC = b"HST1"
LAYOUT = struct.Struct("<4sBBHHHfffII")
# Weights of special keys that are looked at together.
TOGETHER = 2**22
TRACKS = {"received": ("keys", "weight"), "entropy": ("queries", "nats"), "peak": ("queries", "weight")}
SPECIAL = {"special": ("queries", "weight")}


def tile_bytes(tile: MapTile, bits: int) -> bytes:
    """A tile as it travels."""
    tops = [0.0 if plane is None else plane.top for plane in (tile.mean, tile.max)]
    size = (tile.rows, tile.columns, tile.exact)
    head = LAYOUT.pack(MAGIC, tile.status, bits, *size, *tops, tile.error, tile.generation, 0)
    return head + b"".join(bytes_of(plane.codes) for plane in (tile.mean, tile.max) if plane is not None)


def listed(entries: list[Entry]) -> dict[str, Any]:
    """All recordings and their heads."""
    return {"version": installed(), "recordings": [one_listed(entry) for entry in entries]}


def one_listed(entry: Entry) -> dict[str, Any]:
    """One recording and its heads."""
    layers = []
    for number, layer in zip(entry.recording.numbers, entry.recording.layers, strict=True):
        sizes = {"queries": layer.queries[0].length, "keys": layer.keys[0].length} if layer.items else {}
        heads = [
            {"number": head, "ids": [f"{entry.id}-{number}-{head}-{item}" for item in range(layer.items)]}
            for head in layer.head_numbers
        ]
        layers.append(
            {"number": number, "name": layer.name, "kind": layer.kind, "items": layer.items, "heads": heads} | sizes
        )
    return {"id": entry.id, "name": entry.name, "model": entry.recording.model, "layers": layers}


def described(entry: Entry, name: HeadName, one: HeadMap, status: Status) -> dict[str, Any]:
    """What a map of a head needs to know."""
    recording, head = entry.recording, one.head
    layer = recording.layers[recording.numbers.index(name.layer)]
    shift = len(head.k) - len(head.q)
    same = layer.kind == "self" and shift >= 0
    first, last = one.visible
    return {
        "id": "-".join(map(str, name)), "recording": entry.id, "layer": name.layer, "head": name.head,
        "item": name.item, "module": layer.name, "kind": layer.kind, "size": head.q.shape[1],
        "queries": one.shape.queries, "keys": one.shape.keys, "tile": TILE, "top": one.shape.top,
        "base": one.shape.base, "fine": min(FINE, one.shape.base),
        "axes": {"queries": axis_of(head.queries), "keys": axis_of(head.keys)},
        "same": same, "shift": shift if same else 0,
        "visible": {"first": first, "last": last}, "tracks": list(tracks_of(one)), "status": status_of(status),
    }  # fmt: skip


def axis_of(axis: Axis) -> dict[str, Any]:
    """What an axis is, without its labels."""
    return {"kind": axis.kind, "length": axis.length, "grid": axis.grid, "seconds": axis.seconds}


def status_of(status: Status) -> dict[str, Any]:
    """How far a map is."""
    return status._asdict() | {"done": status.rows / max(status.queries, 1)}


def cell_of(cell: Cell, z: int) -> dict[str, Any]:
    """One cell."""
    sides = {"queries": [cell.queries.start, cell.queries.stop], "keys": [cell.keys.start, cell.keys.stop]}
    pair = {"query": cell.query, "key": cell.key, "masked": cell.masked, "exact": cell.exact}
    return {"z": z} | sides | {"mean": cell.mean, "max": cell.max} | pair


def profile(weights: Tensor, axis: Axis, start: int, stop: int, cells: int, top: int) -> dict[str, Any]:
    """Weights along an axis: pooled, and the strongest of them."""
    some = weights[start:stop].double()
    step = max(1, -(-len(some) // cells))
    parts = pad(some, (0, -len(some) % step), value=math.nan).view(-1, step)
    strongest = some.topk(min(top, len(some)))
    return {
        "start": start, "stop": stop, "step": step, "mean": parts.nanmean(1).tolist(),
        "max": parts.nan_to_num(nan=-1.0).amax(1).tolist() if len(some) else [], "sum": float(some.sum()),
        "top": [
            {"position": start + at, "weight": weight, "label": axis.labels[start + at]}
            for weight, at in zip(strongest.values.tolist(), strongest.indices.tolist(), strict=True)
            if weight > 0
        ],
        "status": "exact",
    }  # fmt: skip


def row_of(one: HeadMap, query: int, start: int, stop: int, cells: int, top: int) -> dict[str, Any]:
    """The profile of a query over the keys."""
    weights = one.row(query)
    logs = weights.double().clamp(min=torch.finfo(torch.float64).tiny).log()
    runs = one.call.runs()
    visible = [0, one.shape.keys]
    if runs is not None:
        low, high = (side[0, 0, query if side.shape[2] > 1 else 0] for side in runs)
        visible = [int(low[high > low].min()), int(high.max())] if bool((high > low).any()) else [0, 0]
    own = {"entropy": float(-(weights.double() * logs).sum()), "lse": float(one.lse(slice(query, query + 1))[0])}
    own["lse"] = own["lse"] if math.isfinite(own["lse"]) else math.nan
    found = profile(weights, one.head.keys, start, stop, cells, top)
    return {"axis": "keys", "index": query} | found | own | {"visible": visible}


def column_of(
    one: HeadMap, key: int, start: int, stop: int, cells: int, top: int, between: Between = nothing
) -> dict[str, Any]:
    """The profile of a key over the queries."""
    weights = one.column(key, between)
    own: dict[str, Any] = {"axis": "queries", "index": key, "entropy": None, "lse": None, "visible": None}
    if weights is None:
        none = {"start": start, "stop": stop, "step": 1, "mean": [], "max": [], "sum": None, "top": []}
        return own | none | {"status": "not yet"}
    return own | profile(weights, one.head.queries, start, stop, cells, top)


def tracks_of(one: HeadMap) -> dict[str, tuple[str, str]]:
    """The tracks of a head, each with its axis and unit."""
    keys = one.head.keys
    return TRACKS | (SPECIAL if keys.kind != "positions" and any(keys.special) else {})


def track_of(one: HeadMap, name: str, z: int, x: int, between: Between = nothing) -> dict[str, Any]:
    """256 cells of a statistic along its axis.

    Raises:
        LookError: there is no such zoom or no such part of the axis.
    """
    axis, unit = tracks_of(one)[name]
    length = one.shape.queries if axis == "queries" else one.shape.keys
    first, last = x * (TILE << z), min((x + 1) * (TILE << z), length)
    if not 0 <= z <= one.shape.top or first >= last:
        raise LookError(f"track: there is no part {x} at zoom {z}; zooms go to {one.shape.top}, positions to {length}.")
    values, width = numbers_of(one, name, z, slice(first, last), between)
    parts = pad(values.double(), (0, -len(values) % ((1 << z) // width)), value=math.nan).view(-1, (1 << z) // width)
    known = ~values.isnan()
    status = "exact" if bool(known.all()) and (name != "received" or one.strips.complete) else "partial"
    largest = parts.nan_to_num(nan=-math.inf).amax(1)
    return {
        "name": name, "axis": axis, "z": z, "x": x, "unit": unit, "status": status if bool(known.any()) else "not yet",
        "mean": parts.nanmean(1).tolist(), "max": largest.masked_fill(largest.isneginf(), math.nan).tolist(),
    }  # fmt: skip


def numbers_of(one: HeadMap, name: str, z: int, some: slice, between: Between) -> tuple[Tensor, int]:
    """A statistic of some positions, NaN where it is not known yet; each number is the mean of so many positions."""
    unknown = torch.full((some.stop - some.start,), math.nan)
    if name in ("entropy", "peak"):
        found = one.strips.statistic(name, some)
        return (unknown if found is None else found), 1
    if name == "received" and z >= one.shape.base:
        cells = one.strips.received[some.start >> one.shape.base : -(-some.stop // (1 << one.shape.base))]
        return (cells if one.strips.count() else torch.full_like(cells, math.nan)), 1 << one.shape.base
    rows = slice(0, one.shape.queries) if name == "received" else some
    lse = one.known_lse(rows)
    if lse is None:
        return unknown, 1
    if name == "received":
        found_ = pool(part(one.call, rows, some.start, some.stop), 256, 1, lse=lse, between=between)
        heights = (one.shape.queries - torch.arange(len(found_.mean)) * 256).clamp(max=256)
        return (found_.mean.double() * heights[:, None]).sum(0), 1
    return special_of(one, some, lse, between), 1


def special_of(one: HeadMap, rows: slice, lse: Tensor, between: Between) -> Tensor:
    """The weight of some queries on special keys."""
    keys = torch.tensor(one.head.keys.special).nonzero()[:, 0]
    found = []
    whole = part(one.call, rows)
    step = max(TOGETHER // max(len(keys), 1), 1)
    for first in range(0, rows.stop - rows.start, step):
        between()
        at = torch.arange(first, min(first + step, rows.stop - rows.start))
        found.append(chosen(whole, lse[None, None], at, keys)[0, 0].sum(1))
    return torch.cat(found)
