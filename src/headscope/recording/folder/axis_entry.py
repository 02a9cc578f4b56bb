"""What `recording.json` says of an axis, and how that is checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from headscope.characters import is_text, sentence, shortened
from headscope.files.png_file import size_of
from headscope.look.axis import Axis, cells_fit

LONGEST_NAME, LONGEST_LABEL = 2**12, 2**20
# Bytes of a thumbnail, and pixels along its longer side.
LARGEST_THUMBNAIL, WIDEST_THUMBNAIL = 2**21, 2**12
# Patches of a picture of which a window is shown.
LARGEST_GRID = 2**20

Whole = Annotated[int, Meta(ge=0, le=2**53)]
Integer = Annotated[int, Meta(ge=-(2**53), le=2**53)]
Name = Annotated[str, Meta(max_length=LONGEST_NAME)]
Label = Annotated[str, Meta(max_length=LONGEST_LABEL)]


class AxisEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An axis; plain positions are only a length.

    Attributes:
        picture: the number of an earlier axis of the recording whose thumbnail is this one's, too.
        odd: labels with half of a surrogate pair, which JSON cannot hold: their UTF-16 in hexadecimal digits.
    """

    kind: Literal["tokens", "patches", "frames", "positions", "segments"]
    length: Whole
    labels: tuple[Label, ...] | None = None
    special: tuple[Whole, ...] = ()
    ids: tuple[Integer, ...] | None = None
    spans: tuple[tuple[Whole, Whole] | None, ...] | None = None
    grid: tuple[Whole, Whole] | None = None
    source: Name | None = None
    seconds: float | None = None
    odd: dict[Whole, Label] = {}
    padding: tuple[Whole, ...] | None = None
    parts: tuple[tuple[Name, AxisEntry], ...] | None = None
    thumbnail: Annotated[bytes, Meta(max_length=2 * LARGEST_THUMBNAIL)] | None = None
    cells: tuple[Whole | None, ...] | None = None
    picture: Whole | None = None

    @classmethod
    def of(cls, axis: Axis) -> AxisEntry:
        """What is written of an axis."""
        if axis.parts is not None:
            return cls(axis.kind, axis.length, parts=tuple((named(name), cls.of(part)) for name, part in axis.parts))
        special = tuple(i for i, mark in enumerate(axis.special) if mark)
        plain = axis.kind == "positions" and axis == Axis.positions(axis.length)
        labels = None if plain else tuple(shortened(label, LONGEST_LABEL // 4) for label in axis.labels)
        odd: dict[int, str] = {}
        if labels is not None and not is_text("".join(labels)):
            odd = {i: utf_16(label) for i, label in enumerate(labels) if not is_text(label)}
            labels = tuple(map(sentence, labels)) if len(odd) == len(labels) else replaced(labels, odd)
        source = None if axis.source is None else named(axis.source)
        padding = None if axis.padding is None else tuple(i for i, mark in enumerate(axis.padding) if mark)
        written = labels, special, axis.ids, axis.spans, axis.grid, source, axis.seconds, odd, padding
        thumbnail = axis.thumbnail if axis.thumbnail and len(axis.thumbnail) <= LARGEST_THUMBNAIL else None
        return cls(axis.kind, axis.length, *written, thumbnail=thumbnail, cells=axis.cells)

    def axis(self) -> Axis:
        """The axis that was written."""
        if self.parts is not None:
            return Axis.of_parts(tuple((name, part.axis()) for name, part in self.parts))
        if self.labels is None:
            return Axis.positions(self.length)
        labels = self.labels if not self.odd else replaced(self.labels, self.odd, from_utf_16)
        special = marked(self.special, self.length)
        padding = None if self.padding is None else marked(self.padding, self.length)
        written = labels, special, self.ids, self.spans, self.grid, self.source, self.seconds, padding
        return Axis(self.kind, self.length, *written, cells=self.cells, thumbnail=self.thumbnail)

    def problem(self) -> str | None:
        """What does not fit together in the entry: the field, and why; None when all fits."""
        if self.kind == "segments":
            return self._segments_problem()
        for name in ("labels", "ids", "spans", "cells"):
            entries = getattr(self, name)
            if entries is not None and len(entries) != self.length:
                return f"{name}: {len(entries)} entries for {self.length} positions."
        if self.odd and not (self.labels is not None and max(self.odd) < self.length and all_read(self.odd)):
            return "odd: no label, or no text in UTF-16."
        if self.seconds is not None and not self.seconds >= 0:
            return f"seconds: {self.seconds} is no duration."
        if self.labels is None and self.kind != "positions":
            return f"labels: {self.kind} without labels."
        most = self.length if self.cells is None else LARGEST_GRID
        if self.grid is not None and not (min(self.grid) > 0 and self.grid[0] * self.grid[1] <= most):
            return f"grid: {self.grid} does not fit {self.length} positions."
        if not cells_fit(self.grid, self.cells):
            return f"cells: not in a grid of {self.grid}, or one of them twice."
        if self.thumbnail is not None and max(size_of(self.thumbnail) or (2**31,)) > WIDEST_THUMBNAIL:
            return "thumbnail: not a PNG of at most 4096 x 4096 pixels."
        return None if self.parts is None else f"parts: {self.kind} with segments."

    def _segments_problem(self) -> str | None:
        parts = self.parts or ()
        if any(part.kind == "segments" for _, part in parts):
            return "parts: a segment with segments of its own."
        if not parts or sum(part.length for _, part in parts) != self.length:
            return f"parts: {len(parts)} segments that do not make {self.length} positions."
        return next((f"parts.{name}.{wrong}" for name, part in parts if (wrong := part.problem())), None)


def marked(places: tuple[int, ...], length: int) -> tuple[bool, ...]:
    """A mark for each position, from the places of those that have one."""
    marks = set(places)
    return tuple(i in marks for i in range(length))


def utf_16(label: str) -> str:
    """A text in hexadecimal digits, with halves of surrogate pairs."""
    return label.encode("utf-16-le", "surrogatepass").hex()


def from_utf_16(digits: str) -> str:
    """The text that `utf_16` wrote."""
    return bytes.fromhex(digits).decode("utf-16-le", "surrogatepass")


def replaced(labels: tuple[str, ...], odd: dict[int, str], read: Callable[[str], str] | None = None) -> tuple[str, ...]:
    """Labels with those at some places written out, or read from their digits."""
    changed = list(labels)
    for place, digits in odd.items():
        changed[place] = sentence(changed[place]) if read is None else read(digits)
    return tuple(changed)


def named(name: str) -> str:
    """A name as it is written: short enough to be read again, and without halves of surrogate pairs."""
    return shortened(name if is_text(name) else sentence(name), LONGEST_NAME)


def all_read(odd: dict[int, str]) -> bool:
    """Whether the digits of every label are a text."""
    try:
        return all(isinstance(from_utf_16(digits), str) for digits in odd.values())
    except (ValueError, UnicodeDecodeError):
        return False
