"""The levels of a map on disk: one file for each strip of 256 rows of cells of the finest of them, the base.

A strip has its part of every level, so it is written in one atomic step, and the map is there as far as its strips are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from jaxtyping import Bool
from safetensors import SafetensorError, safe_open
from torch import Tensor

from headscope.files import system
from headscope.files.replace_file import writing
from headscope.files.tensors_file import write_tensors
from headscope.look.kernels.pool import Pooled, extents
from headscope.look.pyramid import Level, levels
from headscope.tiles.codes import Codes, decode, encode, hidden, is_seen
from headscope.tiles.strip_file import STATISTICS, Header, Shape, checked, version

BITS = 16
HIDDEN = hidden(BITS)
UNREADABLE = (OSError, SafetensorError)


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
        self._headers: dict[int, Header] = {}
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
    def _opened(self, strip: int) -> Iterator[tuple[Any, Header]]:
        """The open file of a strip, and what its header says; it is checked once, and again when the file is another.

        Raises:
            OSError, SafetensorError: it cannot be read, or does not have the tensors that it must have.
        """
        path = self.path(strip)
        before = version(path)
        with safe_open(path, "pt") as file:
            header = self._headers.get(strip)
            if header is None or header.version != before or version(path) != before:
                header = self._headers[strip] = checked(file, path, self.shape, strip, before)
            yield file, header

    def statistic(self, name: str, rows: slice) -> Tensor | None:
        """lse, entropy or peak of some queries; None where nothing is there, NaN where some of it is not."""
        for strip in range(rows.start // self.shape.queries_of_strip, -(-rows.stop // self.shape.queries_of_strip)):
            self.has(strip)
        return self.statistics[name][rows] if name in self.statistics else None

    def level(self, strip: int, z: int, left: int, right: int) -> Level | None:
        """The columns `left … right - 1` of a strip at a zoom; hidden where nobody sees any.

        None where the file has been removed or damaged since; the strip counts as not there from then on.
        """
        level, known = self.area(range(strip, strip + 1), z, left, right)
        return level if bool(known.all()) else None

    def area(self, strips: range, z: int, left: int, right: int) -> tuple[Level, Bool[Tensor, " rows"]]:
        """The same of strips one below the other, and which of these rows of cells are there."""
        rows = [self.shape.rows(strip) for strip in strips]
        edges = [0, *itertools.accumulate(-(-(some.stop - some.start) // (1 << z)) for some in rows)]
        codes = torch.full((2, edges[-1], right - left), HIDDEN, dtype=torch.uint16)
        tops, known = torch.zeros(2, edges[-1], 1), torch.zeros(edges[-1], dtype=torch.bool)
        for number, strip in enumerate(strips):
            at = slice(edges[number], edges[number + 1])
            known[at] = self._read(strip, z, (left, right), codes[:, at], tops[:, at])
        # Decoded together: a strip has few rows at a coarse zoom, and a decoding costs a dozen calls.
        mean, largest = (decode(Codes(1.0, side), bits=BITS).mul_(top) for side, top in zip(codes, tops, strict=True))
        return Level(mean, largest, is_seen(Codes(1.0, codes[0]), bits=BITS)), known

    def _read(self, strip: int, z: int, columns: tuple[int, int], codes: Tensor, tops: Tensor) -> bool:
        """Take the codes of mean and max of some columns of a strip and their tops; whether it is there."""
        if not self.has(strip):
            return False
        j, (left, right) = z - self.shape.base, columns
        try:
            with self._opened(strip) as (file, header):
                first, last = header.first >> j, -(-header.last // (1 << j))
                start, stop = (min(max(side, first), last) for side in (left, right))
                if stop > start:
                    for i, name in enumerate(("mean", "max")):
                        codes[i, :, start - left : stop - left] = file.get_slice(f"{name}.{j}")[
                            :, start - first : stop - first
                        ]
                        tops[i] = header.tops[2 * j + i]
        except UNREADABLE:
            self.there.discard(strip)
            return False
        return True
