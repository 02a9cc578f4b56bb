"""Zip files that came from elsewhere: only names that are expected, of sizes that are possible, and not a byte more.

| what                                     | bound                                                          |
|------------------------------------------|----------------------------------------------------------------|
| entries                                  | 2¹⁶, each name once, plain files, stored or deflated, unencrypted |
| names                                    | those that the caller allows: no folder above, no drive, no link |
| the sizes that the directory says        | 64 MiB, or 100 times the size of the file: less than a bomb needs |
| what is packed                           | no more than the file holds, so that no entry can lie in another |
| what comes out                           | exactly the size that the directory says                        |
"""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headscope.errors import HeadscopeError
from headscope.files import system
from headscope.files.bounded import plain
from headscope.files.replace_file import reason

MOST, ALWAYS, RATIO = 2**16, 64 * 2**20, 100
BLOCK = 2**20
# What `zipfile` raises for a file that is no zip, is damaged, encrypted (RuntimeError), or packed in a way that it does
# not know (NotImplementedError).
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)


class ZipReader:
    """A zip file whose directory was checked.

    Attributes:
        sizes: the bytes of every entry, by its name.
    """

    def __init__(self, path: Path, file: zipfile.ZipFile, fail: Callable[[str], HeadscopeError]) -> None:
        self.path, self.file, self.fail = path, file, fail
        self.sizes = {entry.filename: entry.file_size for entry in file.infolist()}

    def read(self, name: str, most: int) -> bytes:
        """A whole entry of at most `most` bytes."""
        if name not in self.sizes:
            raise self.fail(f"{self.path}: holds no {name}; it is damaged, or something else.")
        if self.sizes[name] > most:
            raise self.fail(f"{self.path}: {name} is {self.sizes[name]} bytes long and may have {most}.")
        return b"".join(self.blocks(name))

    def blocks(self, name: str) -> Iterator[bytes]:
        """An entry, a block at a time.

        Raises:
            HeadscopeError: made by `fail`: it is damaged, or holds more or less than the directory says.
        """
        left = self.sizes[name]
        try:
            with self.file.open(name, mode="r") as packed:
                while block := packed.read(BLOCK):
                    left -= len(block)
                    if left < 0:
                        break
                    yield block
        except (*BROKEN, OSError) as error:
            raise self.fail(f"{self.path}: {name} cannot be unpacked ({error}); the file is damaged.") from None
        if left:
            raise self.fail(f"{self.path}: {name} is not as long as the directory says; the file is damaged.")

    def unpack(self, name: str, target: Path) -> None:
        """Write an entry to a new file."""
        handle = system.create(target)
        try:
            for block in self.blocks(name):
                system.write(handle, block)
        finally:
            os.close(handle)


@contextmanager
def opened(path: Path, allowed: Callable[[str], bool], fail: Callable[[str], HeadscopeError]) -> Iterator[ZipReader]:
    """A zip file to read from; nothing of it was unpacked yet.

    Raises:
        HeadscopeError: made by `fail`: no zip file, or one with something in it that is not expected.
    """
    plain(path, fail, follow=True)
    try:
        file = zipfile.ZipFile(path)
    except (*BROKEN, OSError) as error:
        words = reason(error) if isinstance(error, OSError) else str(error)
        raise fail(f"{path}: is not a zip file that can be read ({words}).") from None
    with file:
        check(path, file.infolist(), allowed, fail)
        yield ZipReader(path, file, fail)


def check(
    path: Path, entries: list[zipfile.ZipInfo], allowed: Callable[[str], bool], fail: Callable[[str], HeadscopeError]
) -> None:
    """Raise what `fail` makes unless everything that the directory says is possible and expected."""
    if len(entries) > MOST or len({entry.filename for entry in entries}) < len(entries):
        raise fail(f"{path}: has {len(entries)} entries, or one name twice; headscope did not write it.")
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if not allowed(entry.filename) or entry.orig_filename != entry.filename or kind not in (0, stat.S_IFREG):
            raise fail(
                f"{path}: has an entry {entry.filename[:80]!r}, which headscope never writes; nothing was unpacked."
            )
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 0x1:
            raise fail(f"{path}: {entry.filename} is encrypted, or packed in a way that headscope never uses.")
    size = path.stat().st_size
    whole, packed = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    if whole > max(ALWAYS, RATIO * size) or packed > size:
        raise fail(
            f"{path}: {size} bytes that would become {whole}; nothing that headscope writes does, so it stays packed."
        )


def check_room(folder: Path, size: int, fail: Callable[[str], HeadscopeError]) -> None:
    """Raise what `fail` makes unless a disk has so many free bytes."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise fail(f"{folder}: {size} bytes are to be unpacked there and {free} are free; make room first.")
