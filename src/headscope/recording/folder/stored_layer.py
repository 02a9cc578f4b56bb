"""A layer in a folder: its tensors are mapped from the file when somebody looks at them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from headscope.attention.masks.runs import Runs
from headscope.errors import RecordingError
from headscope.files.bounded import plain
from headscope.files.digests import digest_of_file
from headscope.files.replace_file import reason
from headscope.look.axis import Axis
from headscope.recording.folder import format as form
from headscope.recording.lazy_layer import LazyLayer

ALTERED = "{file}: field sha256: the file was altered or damaged after it was written. Record again, or restore a copy."


class StoredLayer(LazyLayer):
    """A layer in a folder: its file is opened and checked when the first tensor is asked for."""

    def __init__(self, file: Path, entry: form.LayerEntry, axes: Sequence[Axis]) -> None:
        self._file, self._entry, self._folder = file, entry, identity(file.parent)
        self._opened: dict[str, Any] | None = None
        self._unverified: tuple[int, int, int, int] | None = None
        self.name, self.kind, self.scale, self.softcap = entry.name, entry.kind, entry.scale, entry.softcap
        self.queries, self.keys = [axes[i] for i in entry.queries], [axes[i] for i in entry.keys]
        self.number, self.head_numbers, self.rows = entry.number, entry.heads, entry.rows
        self.source = entry.source

    def __repr__(self) -> str:
        return f"StoredLayer({str(self._file)!r}, {self.name!r})"

    @property
    def heads(self) -> int:
        """How many query heads were recorded."""
        return self._entry.tensors["q"][1][1]

    @property
    def items(self) -> int:
        """How many batch items were recorded."""
        return self._entry.tensors["q"][1][0]

    @property
    def digest(self) -> str:
        """The SHA-256 of the layer's file."""
        return self._entry.sha256

    @property
    def file(self) -> Path:
        """The layer's file."""
        return self._file

    @property
    def is_open(self) -> bool:
        """Whether the tensors are mapped."""
        return self._opened is not None

    def opened(self) -> dict[str, Any]:
        """The tensors, mapped from the file once its digest was found to be right."""
        if self._opened is None:
            self._opened = self._mapped(self._entry.sha256)
        return self._opened

    def open_unverified(self) -> None:
        """Map the tensors before their digest was compared: `verify` does that later."""
        self._unverified = version(self._file)
        self._opened = self._mapped(None)

    def verify(self, stopped: Callable[[], bool]) -> bool:
        """Compare the digest of a file that was opened unverified; false where it was stopped between two blocks.

        Raises:
            RecordingError: the file was altered, damaged or replaced; the tensors are dropped.
        """
        try:
            with same_file(self._file) as here:
                found = digest_of_file(here, stopped)
        except OSError as error:
            self._opened = None
            raise RecordingError(f"{self._file}: cannot be read: {reason(error)}.") from None
        if found is None:
            return False
        if found != self._entry.sha256 or version(self._file) != self._unverified:
            self._opened = None
            raise RecordingError(ALTERED.format(file=self._file))
        return True

    def _mapped(self, digest: str | None) -> dict[str, Any]:
        content: dict[str, Any] = dict.fromkeys(("v", "bias", "by_offset", "sinks", "lse")) | self._read(digest)
        start, stop = content.pop("start", None), content.pop("stop", None)
        content["runs"] = None if start is None else Runs(start, stop)
        if start is not None:
            check_runs(self._file, content["runs"], content["k"].shape[2])
        return content

    def _read(self, digest: str | None) -> dict[str, Tensor]:
        """The tensors, unless the folder is another one by now."""
        try:
            tensors = read(self._file, self._entry, digest)
        except RecordingError:
            if identity(self._file.parent) == self._folder:
                raise
        else:
            if identity(self._file.parent) == self._folder:
                return tensors
        raise RecordingError(
            f"{self._file.parent}: was replaced by another recording after it was opened; load it again."
        )


def identity(folder: Path) -> tuple[int, int] | None:
    """Which folder has a name at this moment; None where there is none."""
    try:
        about = os.stat(folder)
    except OSError:
        return None
    return about.st_dev, about.st_ino


def version(file: Path) -> tuple[int, int, int, int] | None:
    """Which file has a name at this moment, and when it was last written; None where there is none."""
    try:
        about = os.stat(file)
    except OSError:
        return None
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def read(file: Path, entry: form.LayerEntry, digest: str | None) -> dict[str, Tensor]:
    """The tensors of a layer's file.

    Args:
        digest: the SHA-256 that the file must have; not compared where None.

    Raises:
        RecordingError: the file is not the one that was written.
    """
    plain(file, RecordingError)
    try:
        with same_file(file) as here:
            if digest is not None and digest_of_file(here) != digest:
                raise RecordingError(ALTERED.format(file=file))
            with safe_open(here, "pt") as tensors:
                return {name: tensors.get_tensor(name) for name in entry.tensors}
    except (OSError, SafetensorError) as error:
        raise RecordingError(f"{file}: cannot be read: {reason(error)}.") from None


@contextmanager
def same_file(file: Path) -> Iterator[Path]:
    """A name of a file that means this very file until the block ends, whatever happens to its own name.

    It is always UTF-8, as safetensors wants it.
    """
    handle = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        name = Path(f"/proc/self/fd/{handle}")
        yield name if name.exists() else file
    finally:
        os.close(handle)


def check_runs(file: Path, runs: Runs, keys: int) -> None:
    """Raise `RecordingError` unless every run lies among the keys."""
    if bool(((runs.start < 0) | (runs.stop < runs.start) | (runs.stop > keys)).any()):
        raise RecordingError(f"{file}: field start, stop: runs that do not lie among the {keys} keys.")
