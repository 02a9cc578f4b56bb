"""The small picture of every head, as it travels in the page: one byte a cell, ready to be drawn."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from headscope.look.overview import CELLS
from headscope.recording.recording import Layer
from headscope.view.picture import marked, picture, top
from headscope.view.subject import Subject

# With more heads than this the page shows a coloured square for each.
MOST = 200
# The byte for "no key of this block may be seen"; the others are the square root of the weight's share of the top.
UNSEEN = 255


def thumbnails(subject: Subject, derived: Layer | None = None) -> dict[str, Any] | None:
    """For every layer the size of its pictures and the top of each, and all bytes; None where there are too many heads.

    The square root keeps small weights apart: of 255 steps the first is 1/65000 of the top.
    """
    if subject.single or sum(layer.heads for layer in subject.layers) > MOST:
        return None
    layers, parts = [], []
    for layer in (*subject.layers, *([] if derived is None else [derived])):
        pictures = [small(layer, head) for head in range(layer.heads)]
        layers.append(
            {"size": list(pictures[0][0].shape), "tops": [float(f"{largest:.6g}") for _, largest in pictures]}
        )
        parts += [cells.tobytes() for cells, _ in pictures]
    return {"layers": layers, "data": base64.b64encode(b"".join(parts)).decode()}


def small(layer: Layer, head: int) -> tuple[UInt8[np.ndarray, "rows columns"], float]:
    """The picture of one head of the first batch item in bytes, and the weight that its largest byte stands for."""
    one, seen = layer.head(head), layer.known_overview(0)
    if seen is None or seen.picture is None:
        pooled = picture(one, CELLS, CELLS)
    else:
        pooled = marked(one, seen.picture[0, head].float().cpu())
    pooled = pooled.nan_to_num(0.0)  # a weight that is no number has no colour here
    return as_bytes(pooled.numpy(), largest := top(pooled, len(one.k))), largest


def as_bytes(weights: Float[np.ndarray, "rows columns"], largest: float) -> UInt8[np.ndarray, "rows columns"]:
    """Weights as square roots in 254 steps.

    Example:
        >>> as_bytes(np.array([[-1.0, 0.0, 0.25, 1.0]], dtype=np.float32), 1.0).tolist()
        [[255, 0, 127, 254]]
    """
    steps = np.round(254 * np.sqrt(np.nan_to_num(weights).clip(0.0, largest) / largest))
    return np.where(weights < 0, UNSEEN, steps).astype(np.uint8)
