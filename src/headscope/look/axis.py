"""What the queries and the keys of a head are: tokens, patches of a picture, frames of sound, or plain positions.

In joint attention they are segments: several such axes, one behind the other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from headscope.errors import LookError

Kind = Literal["tokens", "patches", "frames", "positions", "segments"]

# Labels that the hash of an axis is made of.
HASHED = 16


@dataclass(frozen=True)
class Axis:
    """One axis of a heat map: how many positions, and what each of them is.

    Use the constructors `Axis.tokens`, `Axis.patches`, `Axis.frames`, `Axis.positions` and `Axis.segments`.

    Attributes:
        kind: what the positions are.
        length: how many there are.
        labels: a text for each position.
        special: for each position, whether it is not content ([CLS], [SEP], padding, a class token, a register).
        ids: token ids, where the axis has tokens and they are known.
        spans: `(start, stop)` in characters of the source text for each token, or None where a token has none.
        grid: `(rows, columns)` of the patches.
        cells: for each position the place of its patch in the grid, counted in reading order, or None where it has
            none; None for all where the last positions are the patches of the whole grid in that order.
        source: the image or sound file that the axis was cut from, if known.
        seconds: the duration of one frame.
        padding: for each position, whether the model's input mask hid it; None where that is not known.
        parts: the segments of joint attention, each with its name and an axis of its own.
        thumbnail: a small PNG of what the axis was cut from: the picture, or the spectrogram of the sound, one column
            of pixels or more for each frame. It is shown under the weights, and axes are equal whatever theirs.

    Example:
        >>> Axis.tokens(["the", "cat"]).label(1)
        'cat'
    """

    kind: Kind
    length: int
    labels: tuple[str, ...]
    special: tuple[bool, ...]
    ids: tuple[int, ...] | None = None
    spans: tuple[tuple[int, int] | None, ...] | None = None
    grid: tuple[int, int] | None = None
    source: str | None = None
    seconds: float | None = None
    padding: tuple[bool, ...] | None = None
    parts: tuple[tuple[str, Axis], ...] | None = None
    cells: tuple[int | None, ...] | None = None
    thumbnail: bytes | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("labels", "special", "ids", "spans", "padding", "cells"):
            entries = getattr(self, name)
            if entries is not None and len(entries) != self.length:
                raise LookError(f"Axis: {len(entries)} {name} for {self.length} positions; give one for each position.")
        if self.seconds is not None and not 0 <= self.seconds < math.inf:
            raise LookError(f"Axis: frames of {self.seconds} seconds; give how long one frame lasts.")
        whole = self.cells is None
        if self.grid is not None and not (min(self.grid) > 0 and (not whole or math.prod(self.grid) <= self.length)):
            raise LookError(
                f"Axis: a grid of {self.grid} patches for {self.length} positions; give at least one row and one "
                "column, and a position for each patch."
            )
        if not cells_fit(self.grid, self.cells):
            raise LookError(
                f"Axis: cells that are not in a grid of {self.grid} patches, or two positions in one cell; give each "
                "position a number from 0 to rows * columns - 1 of its own, or None."
            )

    def __hash__(self) -> int:
        """Of a few labels: caches ask for it all the time, and an axis may be as long as a book."""
        return hash((self.kind, self.length, self.labels[:: max(1, self.length // HASHED)]))

    @classmethod
    def positions(cls, length: int) -> Axis:
        """Plain positions 0, 1, 2, …"""
        return cls("positions", length, tuple(str(i) for i in range(length)), (False,) * length)

    @classmethod
    def tokens(
        cls,
        texts: Sequence[str],
        *,
        ids: Sequence[int] | None = None,
        spans: Sequence[tuple[int, int] | None] | None = None,
        special: Sequence[bool] | None = None,
        padding: Sequence[bool] | None = None,
    ) -> Axis:
        """Tokens with their texts; `special` marks those that are not content, such as [CLS]."""
        return cls(
            "tokens",
            len(texts),
            tuple(texts),
            tuple(special) if special is not None else (False,) * len(texts),
            ids=tuple(ids) if ids is not None else None,
            spans=tuple(spans) if spans is not None else None,
            padding=tuple(padding) if padding is not None else None,
        )

    @classmethod
    def patches(
        cls,
        rows: int,
        columns: int,
        *,
        before: Sequence[str] = (),
        cells: Sequence[int | None] | None = None,
        source: str | None = None,
        thumbnail: bytes | None = None,
    ) -> Axis:
        """Patches of a picture in reading order, after the class and register tokens named in `before`.

        Args:
            cells: where the positions after `before` are only some of the patches, or in another order (a window of the
                picture, a masked picture): the place of each in the grid, `row * columns + column`, or None where a
                position only fills a window up beyond the edge of the picture.

        Example:
            >>> Axis.patches(2, 3, cells=[1, 2, 4, None]).labels
            ('(0, 1)', '(0, 2)', '(1, 1)', '[PAD]')
        """
        shown = range(rows * columns) if cells is None else cells
        patches = tuple("[PAD]" if cell is None else str(divmod(cell, columns or 1)) for cell in shown)
        special = (True,) * len(before) + tuple(cell is None for cell in shown)
        return cls(
            "patches",
            len(special),
            tuple(before) + patches,
            special,
            grid=(rows, columns),
            source=source,
            thumbnail=thumbnail,
            cells=None if cells is None else (None,) * len(before) + tuple(cells),
        )

    @classmethod
    def frames(cls, length: int, seconds: float, *, source: str | None = None) -> Axis:
        """Frames of sound that last `seconds` each."""
        labels = tuple(f"{i * seconds:.2f} s" for i in range(length))
        return cls("frames", length, labels, (False,) * length, seconds=seconds, source=source)

    @classmethod
    def segments(cls, **parts: Axis) -> Axis:
        """The axes of joint attention, one behind the other, under their names: text and picture, as FLUX has them.

        Raises:
            LookError: no segments, or one that has segments itself.

        Example:
            >>> axis = Axis.segments(text=Axis.tokens(["a", "cat"]), picture=Axis.patches(1, 2))
            >>> axis.labels
            ('a', 'cat', '(0, 0)', '(0, 1)')
            >>> axis.segment(3)
            ('picture', 1)
        """
        if not parts or any(axis.parts is not None for axis in parts.values()):
            raise LookError(
                f"Axis.segments: given {', '.join(parts) or 'no segments'}; give one or more axes without segments of "
                "their own, each under its name: Axis.segments(text=..., picture=...)."
            )
        return cls.of_parts(tuple(parts.items()))

    @classmethod
    def of_parts(cls, parts: tuple[tuple[str, Axis], ...]) -> Axis:
        """`segments` from names and axes; after a selection a name may occur more than once."""
        axes = [axis for _, axis in parts]
        labels = tuple(
            f"{name} {label}" if axis.kind == "positions" else label for name, axis in parts for label in axis.labels
        )
        special = sum((axis.special for axis in axes), ())
        padding: tuple[bool, ...] | None = None
        if any(axis.padding is not None for axis in axes):
            padding = sum((axis.padding or (False,) * axis.length for axis in axes), ())
        return cls("segments", len(labels), labels, special, padding=padding, parts=parts)

    def segment(self, position: int) -> tuple[str, int]:
        """The name of the segment that a position lies in, and its place in it; the axis kind without segments."""
        self.label(position)
        position %= self.length
        for name, axis in self.parts or ():
            if position < axis.length:
                return name, position
            position -= axis.length
        return self.kind, position

    def segment_numbers(self) -> Int64[Tensor, " n"]:
        """For each position the number of its segment; 0 where there are none."""
        lengths = torch.tensor([axis.length for _, axis in self.parts or (("", self),)])
        return torch.arange(len(lengths)).repeat_interleave(lengths)

    def label(self, position: int) -> str:
        """The text of one position; a negative position counts from the end."""
        if not -self.length <= position < self.length:
            raise LookError(
                f"Axis: position {position} does not exist; there are {self.length}, from 0 to {self.length - 1}."
            )
        return self.labels[position]

    def find(self, text: str) -> int:
        """The first position whose label is `text`, ignoring case and the space around it."""
        wanted = text.strip().lower()
        for position, label in enumerate(self.labels):
            if label.strip().lower() == wanted:
                return position
        raise LookError(
            f"Axis: no position is labelled {text!r}; the labels are {', '.join(map(repr, self.labels[:20]))}."
        )

    def select(self, positions: Sequence[int]) -> Axis:
        """The same axis with only the given positions, in that order."""
        if self.parts is not None:
            return self._select_parts(positions)
        whole = list(positions) == list(range(self.length)) or self.cells is not None
        return replace(
            self,
            length=len(positions),
            labels=tuple(self.labels[i] for i in positions),
            special=tuple(self.special[i] for i in positions),
            ids=None if self.ids is None else tuple(self.ids[i] for i in positions),
            spans=None if self.spans is None else tuple(self.spans[i] for i in positions),
            grid=self.grid if whole else None,
            thumbnail=self.thumbnail if whole else None,
            padding=None if self.padding is None else tuple(self.padding[i] for i in positions),
            cells=None if self.cells is None else tuple(self.cells[i] for i in positions),
        )

    def _select_parts(self, positions: Sequence[int]) -> Axis:
        """Positions of the same segment that stand side by side become one segment again."""
        assert self.parts is not None
        numbers = self.segment_numbers().tolist()
        starts = [0]
        for _, axis in self.parts:
            starts.append(starts[-1] + axis.length)
        groups = itertools.groupby((i % self.length for i in positions), key=lambda i: numbers[i])
        chosen = [(number, [i - starts[number] for i in group]) for number, group in groups]
        return self.of_parts(tuple((self.parts[n][0], self.parts[n][1].select(local)) for n, local in chosen))


def cells_fit(grid: tuple[int, int] | None, cells: Sequence[int | None] | None) -> bool:
    """Whether cells lie in a grid, each at most once."""
    if cells is None:
        return True
    filled = [cell for cell in cells if cell is not None]
    inside = grid is not None and all(0 <= cell < math.prod(grid) for cell in filled)
    return inside and len(set(filled)) == len(filled)
