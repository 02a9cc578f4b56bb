"""The levels of a map on disk: one file for each strip of 256 rows of cells of the finest of them, the base.

A strip has its part of every level, so it is written in one atomic step, and the map is there as far as its strips are.

| tensor              | what                                                                    |
|---------------------|-------------------------------------------------------------------------|
| `lse entropy peak`  | of the strip's queries; entropy in nats, peak is the largest weight      |
| `mean.j`, `max.j`   | codes of 16 bits of the level `base + j`, only the columns that are seen |
| `received`          | the weight on the keys of every column of the base, averaged over them  |
| `tops`              | for each level the number of the largest code of mean and of max         |
| `span`              | the first and the last column + 1 of the base level                      |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from headscope.files import system
from headscope.files.replace_file import writing
from headscope.files.tensors_file import write_tensors
from headscope.look.kernels.pool import LARGEST_CELL, Pooled, extents
from headscope.look.pyramid import TILE, Level, base_zoom, levels, top_zoom
from headscope.tiles.codes import Codes, decode, encode, is_seen

# Cells on a side of the base level: 131 072 tokens have cells of 16, a million of 128.
CELLS = 8192
BITS = 16
# Tiles up to this zoom are computed on request, within some ten milliseconds: at most a million weights.
FINE = 2
STATISTICS = ("lse", "entropy", "peak")
UNREADABLE = (OSError, SafetensorError)


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


class Strips:
    """The strips of one head in a folder; several processes may write to it at the same time.

    Nothing in the folder is trusted to be what a pass wrote: a strip whose tensors have other names, dtypes or sizes,
    and a link in the place of one, count as not there and are made again.
    """

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.folder, self.shape = folder, shape
        self.there: set[int] = set()
        self.statistics: dict[str, Tensor] = {}
        self.received = torch.zeros(shape.columns, dtype=torch.float64)
        self._received_of: set[int] = set()
        self._lock = Lock()

    def path(self, strip: int) -> Path:
        """The file of a strip."""
        return self.folder / f"strip-{strip:05}.safetensors"

    def has(self, strip: int) -> bool:
        """Whether a strip is there; one that cannot be read is not."""
        if strip not in self.there:
            with self._lock:
                if strip not in self.there and self.read_statistics(strip):
                    self.there.add(strip)
        return strip in self.there

    def count(self) -> int:
        """How many strips are there."""
        return sum(map(self.has, range(self.shape.strips)))

    @property
    def complete(self) -> bool:
        """Whether every strip is there."""
        return len(self.there) == self.shape.strips or self.count() == self.shape.strips

    def rows_from_the_start(self) -> int:
        """How many queries are there without a gap, from the first on."""
        done = next((strip for strip in range(self.shape.strips) if not self.has(strip)), self.shape.strips)
        return min(done * self.shape.queries_of_strip, self.shape.queries)

    def write(self, strip: int, found: Pooled) -> None:
        """Keep what a pass found of a strip."""
        assert found.entropy is not None
        rows = self.shape.rows(strip)
        cell, step = 1 << self.shape.base, 1 << (self.shape.top - self.shape.base)
        columns = found.seen.any(0).nonzero()[:, 0]
        first, last = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
        # On every level the part begins at a whole column.
        first, last = first // step * step, min(-(-last // step) * step, found.mean.shape[1])
        keys = slice(first * cell, min(last * cell, self.shape.keys))
        tensors = {"lse": found.lse, "entropy": found.entropy, "peak": found.peak, "span": torch.tensor([first, last])}
        tops = []
        part = found._replace(**{name: getattr(found, name)[:, first:last] for name in ("mean", "max", "seen")})
        if last > first:
            made = levels(
                part, rows.stop - rows.start, keys.stop - keys.start, cell, self.shape.top - self.shape.base + 1
            )
            for j, level in enumerate(made):
                for name, side in (("mean", level.mean), ("max", level.max)):
                    coded = encode(side, level.seen, bits=BITS)
                    tensors[f"{name}.{j}"] = coded.codes
                    tops.append(coded.top)
        tensors["received"] = (
            found.mean.double().mul_(extents(rows.stop - rows.start, cell, found.mean)[:, None]).sum(0)
        )
        tensors["tops"] = torch.tensor(tops, dtype=torch.float32)
        system.make_folders(self.folder)
        if self.path(strip).is_symlink():
            system.remove(self.path(strip))  # never written through: nobody but a pass has anything to say here
        with writing("tiles", self.path(strip)) as file:
            write_tensors(file, {name: x.cpu() for name, x in tensors.items()})

    def read_statistics(self, strip: int) -> bool:
        """Take lse, entropy and peak of a strip; whether its file can be read and may be what a pass wrote."""
        rows = self.shape.rows(strip)
        try:
            with self._opened(strip) as (file, _):
                found = {name: file.get_tensor(name) for name in STATISTICS}
                received = file.get_tensor("received")
        except UNREADABLE:
            return False
        if strip not in self._received_of:
            self.received += received
            self._received_of.add(strip)
        for name, x in found.items():
            if name not in self.statistics:
                self.statistics[name] = torch.full((self.shape.queries,), torch.nan, dtype=x.dtype)
            self.statistics[name][rows] = x
        return True

    @contextmanager
    def _opened(self, strip: int) -> Iterator[tuple[Any, tuple[int, int]]]:
        """The open file of a strip, and its span.

        Raises:
            OSError, SafetensorError: it cannot be read, or does not have the tensors that it must have.
        """
        path = self.path(strip)
        if path.is_symlink() or not path.is_file():
            raise FileNotFoundError(path)
        with safe_open(path, "pt") as file:
            if not is_of(file, "span", ("I64",), [2]):
                raise SafetensorError(f"{path}: no span")
            first, last = file.get_tensor("span").tolist()
            wanted = self.shape.tensors(strip, first, last)
            if wanted is None or not all(is_of(file, name, *one) for name, one in wanted.items()):
                raise SafetensorError(f"{path}: other tensors than those of this strip")
            yield file, (first, last)

    def statistic(self, name: str, rows: slice) -> Tensor | None:
        """lse, entropy or peak of some queries; None where nothing is there, NaN where some of it is not."""
        for strip in range(rows.start // self.shape.queries_of_strip, -(-rows.stop // self.shape.queries_of_strip)):
            self.has(strip)
        return self.statistics[name][rows] if name in self.statistics else None

    def level(self, strip: int, z: int, left: int, right: int) -> Level | None:
        """The columns `left … right - 1` of a strip at a zoom; hidden where nobody sees any.

        None where the file has been removed or damaged since; the strip counts as not there from then on.
        """
        try:
            with self._opened(strip) as (file, span):
                return self._level(file, span, strip, z, left, right)
        except UNREADABLE:
            self.there.discard(strip)
            return None

    def _level(self, file: Any, span: tuple[int, int], strip: int, z: int, left: int, right: int) -> Level:
        j = z - self.shape.base
        rows = self.shape.rows(strip)
        height = -(-(rows.stop - rows.start) // (1 << z))
        first, last = span[0] >> j, -(-span[1] // (1 << j))
        tops = file.get_tensor("tops").tolist()[2 * j : 2 * j + 2]
        some = slice(min(max(left, first), last) - first, min(max(right, first), last) - first)
        out = Level(
            torch.zeros(height, right - left),
            torch.zeros(height, right - left),
            torch.zeros(height, right - left, dtype=torch.bool),
        )
        if some.stop > some.start:
            coded = [
                Codes(top, file.get_slice(f"{name}.{j}")[:, some])
                for name, top in zip(("mean", "max"), tops, strict=True)
            ]
            at = slice(some.start + first - left, some.stop + first - left)
            out.mean[:, at], out.max[:, at] = (decode(one, bits=BITS) for one in coded)
            out.seen[:, at] = is_seen(coded[0], bits=BITS)
        return out


def is_of(file: Any, name: str, dtypes: tuple[str, ...], shape: list[int]) -> bool:
    """Whether an open file has a tensor of that name, one of these dtypes, and that shape; reads its header alone."""
    if name not in set(file.keys()):
        return False
    one = file.get_slice(name)
    return one.get_dtype() in dtypes and list(one.get_shape()) == shape
