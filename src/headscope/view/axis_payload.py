"""An axis as it travels in the page: its labels, the pictures within it, and the spectrogram of a sound."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headscope.look.axis import Axis
from headscope.view.labels import visible
from headscope.view.regions import Region, regions


@dataclass
class Axes:
    """The axes of all layers, each once, and the images that belong to them, each once.

    Attributes:
        every: all axes of the recording: those of the layers that saw a picture tell its grid to the others.
        images: whether thumbnails travel in the page.
    """

    every: tuple[Axis, ...]
    thumbnails: bool = True
    entries: list[dict[str, Any]] = field(default_factory=list)
    images: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places: dict[tuple[Axis, bytes | None], int] = {}
        self._images: dict[bytes, int] = {}

    def places(self, axes: Iterable[Axis]) -> list[int]:
        """Where axes stand among the entries; they are added unless they are there already."""
        return [self.place(axis) for axis in axes]

    def place(self, axis: Axis) -> int:
        """Where one axis stands; two pictures of one size are two axes."""
        key = axis, axis.thumbnail
        if key not in self._places:
            self._places[key] = len(self.entries)
            self.entries.append(self.entry(axis))
        return self._places[key]

    def entry(self, axis: Axis) -> dict[str, Any]:
        """An axis for JSON: labels that are plain numbers are left to the browser."""
        sound = axis.kind == "frames" and axis.thumbnail is not None
        found = regions(axis, self.every)
        # Placeholders of a picture are special to a tokenizer; here they are the picture.
        patches = {i for one in found for i in range(one.start, one.stop)} if axis.kind == "tokens" else set()
        return {
            "kind": axis.kind,
            "length": axis.length,
            "labels": None if axis.kind == "positions" else [visible(label) for label in axis.labels],
            "special": [i for i, special in enumerate(axis.special) if special and i not in patches],
            "grid": axis.grid,
            "seconds": axis.seconds,
            "source": name_of(axis.source),
            "pictures": [self.picture(region) for region in found],
            "strip": self.image(axis.thumbnail) if sound else None,
        }

    def picture(self, region: Region) -> dict[str, Any]:
        """A picture within an axis for JSON."""
        return {
            "at": region.start,
            "rows": region.rows,
            "columns": region.columns,
            "cells": region.cells,
            "image": self.image(region.thumbnail),
            "source": name_of(region.source),
        }

    def image(self, content: bytes | None) -> int | None:
        """The number of an image."""
        if content is None or not self.thumbnails:
            return None
        if content not in self._images:
            self._images[content] = len(self.images)
            self.images.append("data:image/png;base64," + base64.b64encode(content).decode())
        return self._images[content]


def name_of(source: str | None) -> str | None:
    """The name of a file without its folders."""
    return None if source is None else visible(Path(source).name)
