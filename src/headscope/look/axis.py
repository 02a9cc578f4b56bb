"""What the queries and the keys of a head are: tokens, patches of a picture, frames of sound, or plain positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from headscope.errors import LookError

Kind = Literal["tokens", "patches", "frames", "positions"]


@dataclass(frozen=True)
class Axis:
    """One axis of a heat map: how many positions, and what each of them is.

    Use the constructors `Axis.tokens`, `Axis.patches`, `Axis.frames` and `Axis.positions`.

    Attributes:
        kind: what the positions are.
        length: how many there are.
        labels: a text for each position.
        special: for each position, whether it is no content ([CLS], [SEP], padding, a class token, a register).
        ids: token ids, where the axis has tokens and they are known.
        spans: `(start, stop)` in characters of the source text for each token, or None where a token has none.
        grid: `(rows, columns)` of the patches.
        source: the image or sound file that the axis was cut from, if known.
        seconds: the duration of one frame.

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

    def __post_init__(self) -> None:
        for name in ("labels", "special", "ids", "spans"):
            given = getattr(self, name)
            if given is not None and len(given) != self.length:
                raise LookError(
                    f"Axis: {len(given)} {name} were given for {self.length} positions; give one for each position."
                )

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
    ) -> Axis:
        """Tokens with their texts; `special` marks those that are no content, such as [CLS]."""
        return cls(
            "tokens",
            len(texts),
            tuple(texts),
            tuple(special) if special is not None else (False,) * len(texts),
            ids=tuple(ids) if ids is not None else None,
            spans=tuple(spans) if spans is not None else None,
        )

    @classmethod
    def patches(cls, rows: int, columns: int, *, before: Sequence[str] = (), source: str | None = None) -> Axis:
        """Patches of a picture in reading order, after the class and register tokens named in `before`."""
        cells = tuple(f"({row}, {column})" for row in range(rows) for column in range(columns))
        special = (True,) * len(before) + (False,) * len(cells)
        return cls("patches", len(special), tuple(before) + cells, special, grid=(rows, columns), source=source)

    @classmethod
    def frames(cls, length: int, seconds: float, *, source: str | None = None) -> Axis:
        """Frames of sound that last `seconds` each."""
        labels = tuple(f"{i * seconds:.2f} s" for i in range(length))
        return cls("frames", length, labels, (False,) * length, seconds=seconds, source=source)

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
        return replace(
            self,
            length=len(positions),
            labels=tuple(self.labels[i] for i in positions),
            special=tuple(self.special[i] for i in positions),
            ids=None if self.ids is None else tuple(self.ids[i] for i in positions),
            spans=None if self.spans is None else tuple(self.spans[i] for i in positions),
            grid=self.grid if list(positions) == list(range(self.length)) else None,
        )
