"""A tile: a block of rows over the hull of their runs, and how much of a mask is left inside it.

Three kinds of tile follow from how the runs change from row to row:

- `full`: every row sees every key of the tile; no mask at all;
- `causal`: as many rows as keys, row i sees the first i + 1 keys;
- `masked`: anything else; the rows' own runs, relative to the tile, become a small mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Tile:
    """A block of rows, over one or a few spans of keys.

    Attributes:
        items, heads: the batch items and the query heads that the tile is for.
        rows: the queries.
        spans: the hulls of the rows' runs: a few `(first, last)` intervals of keys, ascending and disjoint.
        kind: how much of a mask is left inside.
        start, stop: for a masked tile the runs of its rows, `(rows, r)`, counted along the tile's own keys.
        repeat: how often the tile occurs, one copy right below the other.
        step: how many keys further each copy looks than the one above it.
    """

    items: slice
    heads: slice
    rows: slice
    spans: tuple[tuple[int, int], ...]
    kind: Literal["full", "causal", "masked"]
    start: Ints | None = None
    stop: Ints | None = None
    repeat: int = 1
    step: int = 0

    def groups(self, share: int) -> slice:
        """The key heads of the tile, where `share` query heads read each of them."""
        return slice(self.heads.start // share, (self.heads.stop - 1) // share + 1)

    @property
    def keys(self) -> int:
        """How many keys the spans hold."""
        return sum(last - first for first, last in self.spans)

    @property
    def all_rows(self) -> slice:
        """The rows of the tile and of its copies."""
        return slice(self.rows.start, self.rows.start + self.repeat * (self.rows.stop - self.rows.start))

    @property
    def all_spans(self) -> tuple[tuple[int, int], ...]:
        """The keys of the tile and of its copies."""
        *before, (first, last) = self.spans
        return (*before, (first, last + (self.repeat - 1) * self.step))

    def follows(self, other: Tile) -> bool:
        """Whether this tile is the other one again, right below it and some keys further."""
        step = self.spans[0][0] - other.spans[0][0]
        return (
            self.kind == other.kind
            and self.items.stop - self.items.start == 1
            and len(self.spans) == len(other.spans) == 1
            and self.keys == other.keys
            and self.rows.start == other.rows.stop
            and self.rows.stop - self.rows.start == other.rows.stop - other.rows.start
            and step > 0
            and (self.kind != "masked" or self.pattern == other.pattern)
        )

    @property
    def pattern(self) -> bytes:
        """Equal for two masked tiles with equal masks: in a band the same small mask returns tile after tile."""
        assert self.start is not None
        assert self.stop is not None
        return self.keys.to_bytes(8, "little") + self.start.tobytes() + self.stop.tobytes()

    def allowed(self) -> NDArray[np.bool_]:
        """The mask of a masked tile, `(rows, keys)`."""
        assert self.start is not None
        assert self.stop is not None
        # One step up at every start, one down at every stop, summed along the row.
        steps = np.zeros((len(self.start), self.keys + 1), dtype=np.int8)
        rows = np.broadcast_to(np.arange(len(self.start))[:, None], self.start.shape)
        np.add.at(steps, (rows, self.start), 1)
        np.add.at(steps, (rows, self.stop), -1)
        return steps[:, :-1].cumsum(1, dtype=np.int8) > 0
