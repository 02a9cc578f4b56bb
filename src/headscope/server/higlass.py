"""The protocol that clients of HiGlass speak: tilesets of heads, as matrices and as vectors.

Source: the answers that the client of HiGlass 1.13 and 2 reads (`tileset_info`, `tiles`); their zoom counts from the
coarsest.
"""

from __future__ import annotations

import base64
import re
from typing import Any

import torch
from torch import Tensor

from headscope.errors import LookError
from headscope.files.digests import bytes_of
from headscope.look.pyramid import TILE
from headscope.server.answers import track_of, tracks_of
from headscope.server.library import Entry
from headscope.tiles.codes import decode, is_seen
from headscope.tiles.head_map import Between, HeadMap

MATRICES = ("mean", "max")
TILESET = re.compile(r"([0-9a-f]{12}-[0-9]{1,6}-[0-9]{1,6}-[0-9]{1,6})-([a-z]{1,16})")
PLACE = re.compile(r"(.{1,80}?)\.([0-9]{1,2})\.([0-9]{1,7})(?:\.([0-9]{1,7}))?")


def tileset_of(one: HeadMap, kind: str, title: str) -> dict[str, Any]:
    """What a client must know of a tileset.

    Raises:
        LookError: the head has no such tileset.
    """
    width = TILE << one.shape.top
    shared = {
        "name": title, "tile_size": TILE, "bins_per_dimension": TILE, "max_zoom": one.shape.top, "max_width": width,
        "coordSystem": "tokens", "mirror_tiles": "false",
    }  # fmt: skip
    if kind in MATRICES:
        return shared | {"min_pos": [0, 0], "max_pos": [one.shape.keys, one.shape.queries]}
    if kind not in tracks_of(one):
        raise LookError(
            f"there is no tileset {kind} of this head; there are {', '.join((*MATRICES, *tracks_of(one)))}."
        )
    length = one.shape.keys if tracks_of(one)[kind][0] == "keys" else one.shape.queries
    return shared | {"min_pos": [0], "max_pos": [length]}


def tile_of(one: HeadMap, kind: str, z: int, x: int, y: int | None, between: Between) -> dict[str, Any]:
    """One tile of a matrix or a vector: always of full size, NaN where nothing is known or seen.

    Raises:
        LookError: the head has no such tile.
    """
    zoom = one.shape.top - z
    if kind in MATRICES:
        if y is None:
            raise LookError("a tile of a matrix is TILESET.ZOOM.X.Y.")
        return dense(matrix_tile(one, kind, zoom, x, y, between))
    tileset_of(one, kind, "")
    if y is not None:
        raise LookError("a tile of a vector is TILESET.ZOOM.X.")
    found = track_of(one, kind, zoom, x, between)
    values = torch.full((TILE,), torch.nan)
    values[: len(found["mean"])] = torch.tensor(found["mean"], dtype=torch.float32)
    return dense(values)


def matrix_tile(one: HeadMap, kind: str, z: int, x: int, y: int, between: Between) -> Tensor:
    """The numbers of a tile, `(256, 256)`."""
    tile = one.tile(z, x, y, 16, between)
    values = torch.full((TILE, TILE), torch.nan)
    plane = getattr(tile, kind)
    if plane is not None:
        numbers = decode(plane, bits=16).masked_fill(~is_seen(plane, bits=16), torch.nan)
        values[: tile.rows, : tile.columns] = numbers
    return values


def dense(values: Tensor) -> dict[str, Any]:
    """Numbers as a client of HiGlass reads them."""
    known = values[~values.isnan()]
    least, most = (float(known.min()), float(known.max())) if known.numel() else (0.0, 0.0)
    text = base64.b64encode(bytes_of(values.float())).decode()
    return {"dense": text, "dtype": "float32", "min_value": least, "max_value": most, "size": 1}


def tilesets(entries: list[Entry], most: int) -> dict[str, Any]:
    """The tilesets of all heads, up to a number of them."""
    found: list[dict[str, Any]] = []
    count = 0
    for entry in entries:
        for number, layer in zip(entry.recording.numbers, entry.recording.layers, strict=True):
            for head in layer.head_numbers:
                for item in range(layer.items):
                    for kind in (*MATRICES, "received", "entropy", "peak"):
                        count += 1
                        if len(found) < most:
                            found.append(listed(f"{entry.id}-{number}-{head}-{item}", entry.name, number, head, kind))
    return {"count": count, "next": None, "previous": None, "results": found}


def listed(name: str, recording: str, layer: int, head: int, kind: str) -> dict[str, Any]:
    """One tileset in the list."""
    matrix = kind in MATRICES
    return {
        "uuid": f"{name}-{kind}", "name": f"{recording} · layer {layer} head {head} · {kind}",
        "project_name": recording,
        "datatype": "matrix" if matrix else "vector", "filetype": "cooler" if matrix else "hitile",
        "coordSystem": "tokens", "private": False, "description": "", "created": "1970-01-01T00:00:00Z",
    }  # fmt: skip
