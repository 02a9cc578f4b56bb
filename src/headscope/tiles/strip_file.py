"""What the file of a strip holds, for a head of some size, and how its header is checked.

| tensor              | what                                                                    |
|---------------------|-------------------------------------------------------------------------|
| `lse entropy peak`  | of the strip's queries; entropy in nats, peak is the largest weight      |
| `mean.j`, `max.j`   | codes of 16 bits of the level `base + j`, only the columns that are seen |
| `received`          | the weight on the keys of every column of the base, averaged over them  |
| `tops`              | for each level the number of the largest code of mean and of max         |
| `span`              | the first and the last column + 1 of the base level                      |
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError

from headscope.look.kernels.pool import LARGEST_CELL
from headscope.look.pyramid import TILE, base_zoom, top_zoom

# Cells on a side of the base level: 131 072 tokens have cells of 16, a million of 128.
CELLS = 8192
# Tiles up to this zoom are computed on request, within some ten milliseconds: at most a million weights.
FINE = 2
STATISTICS = ("lse", "entropy", "peak")


@dataclass(frozen=True)
class Shape:
    """The sizes of a head, and what follows from them for its map.

    Attributes:
        base, top: the finest and the coarsest zoom on disk; a cell of the base pools `2^base` queries and keys.
        queries_of_strip: how many queries a strip has; the last one may have fewer.
    """

    queries: int
    keys: int
    cells: int = CELLS

    @cached_property
    def base(self) -> int:
        """The finest zoom on disk; no cell of it is larger than one pass can pool."""
        least = min(FINE + 1, top_zoom(self.queries, self.keys))
        return min(max(base_zoom(self.queries, self.keys, self.cells), least), LARGEST_CELL.bit_length() - 1)

    @cached_property
    def top(self) -> int:
        """The coarsest zoom."""
        return max(top_zoom(self.queries, self.keys), self.base)

    @property
    def queries_of_strip(self) -> int:
        """Queries of a strip: one row of tiles of the base level."""
        return TILE << self.base

    @property
    def strips(self) -> int:
        """How many strips the map has."""
        return -(-self.queries // self.queries_of_strip)

    @property
    def columns(self) -> int:
        """Columns of cells of the base level."""
        return -(-self.keys // (1 << self.base))

    def rows(self, strip: int) -> slice:
        """The queries of a strip."""
        return slice(strip * self.queries_of_strip, min((strip + 1) * self.queries_of_strip, self.queries))

    def tensors(self, strip: int, first: int, last: int) -> dict[str, tuple[tuple[str, ...], list[int]]] | None:
        """The dtypes and the shape of each tensor of a strip with that span; None where no strip has such a span."""
        step = 1 << (self.top - self.base)
        if not 0 <= first <= last <= self.columns or first % step or (last % step and last != self.columns):
            return None
        count = self.rows(strip).stop - self.rows(strip).start
        zooms = range(self.top - self.base + 1) if last > first else range(0)
        found: dict[str, tuple[tuple[str, ...], list[int]]]
        found = {name: (("F32", "F64"), [count]) for name in STATISTICS}
        found |= {"received": (("F64",), [self.columns]), "tops": (("F32",), [2 * len(zooms)])}
        for j in zooms:
            shape = [-(-count // (1 << (self.base + j))), -(-last // (1 << j)) - (first >> j)]
            found |= {f"{name}.{j}": (("U16",), shape) for name in ("mean", "max")}
        return found


class Header(NamedTuple):
    """What the header of a strip's file says: of which version of the file, its span, and its tops."""

    version: tuple[int, ...]
    first: int
    last: int
    tops: tuple[float, ...]


def checked(file: Any, path: Path, shape: Shape, strip: int, of: tuple[int, ...]) -> Header:
    """The header of the open file of a strip.

    Args:
        of: the version of the file.

    Raises:
        SafetensorError: it does not have the tensors that it must have.
    """
    names = set(file.keys())

    def there(name: str, dtypes: tuple[str, ...], sizes: list[int]) -> bool:
        one = file.get_slice(name) if name in names else None
        return one is not None and one.get_dtype() in dtypes and list(one.get_shape()) == sizes

    if not there("span", ("I64",), [2]):
        raise SafetensorError(f"{path}: no span")
    first, last = file.get_tensor("span").tolist()
    wanted = shape.tensors(strip, first, last)
    if wanted is None or not all(there(name, *one) for name, one in wanted.items()):
        raise SafetensorError(f"{path}: other tensors than those of this strip")
    return Header(of, first, last, tuple(file.get_tensor("tops").tolist()))


def version(path: Path) -> tuple[int, ...]:
    """Which file has a name at this moment, and when it was last written.

    Raises:
        FileNotFoundError: there is none, or it is no plain file.
    """
    about = os.lstat(path)
    if not stat.S_ISREG(about.st_mode):
        raise FileNotFoundError(path)
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
