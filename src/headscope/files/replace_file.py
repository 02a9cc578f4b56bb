"""A file that is there whole or not at all: written beside its place, flushed, and moved there in one atomic step."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from headscope.errors import HeadscopeError
from headscope.files import system
from headscope.files.claims import claim, release, sweep

KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


@runtime_checkable
class Output(Protocol):
    """What takes the bytes of a file."""

    def write(self, content: Any, /) -> Any:
        """Take the next bytes."""


class Place(NamedTuple):
    """Where a file goes, and the permissions of the one that it replaces."""

    path: Path
    mode: int | None


class Handle:
    """A file that is being written."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def write(self, content: Any, /) -> int:
        """Write the next bytes."""
        system.write(self.handle, content)
        return memoryview(content).nbytes


def write(what: str, path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file whole or not at all, and return its path.

    A symbolic link is written through: the file that it names is replaced. A folder, pipe, socket or device is refused.
    Several processes and threads may write the same file; one of the contents is there at the end, whole.

    Args:
        what: who writes, for messages.

    Raises:
        HeadscopeError: the path cannot be written; what was there is still there, and nothing else.
    """
    with writing(what, path) as file:
        file.write(content)
    return Path(path).expanduser()


@contextmanager
def writing(what: str, path: str | os.PathLike[str]) -> Iterator[Output]:
    """A file to write to, which takes its name when the block ends without an exception; see `write`."""
    target = Path(path).expanduser()
    try:
        place = destination(what, target)
        with replacing(place) as file:
            yield file
    except OSError as error:
        hint = "make it first" if isinstance(error, FileNotFoundError | NotADirectoryError) else "give another path"
        raise HeadscopeError(
            f"{what}: {target} cannot be written ({reason(error)}); the folder is {target.absolute().parent}: {hint}."
        ) from error


@contextmanager
def replacing(place: Place) -> Iterator[Handle]:
    """The steps of writing a file, without any words about it."""
    folder = place.path.parent
    sweep(folder)
    made = claim(folder)
    try:
        if place.mode is not None:
            system.set_mode(made.handle, place.mode)
        yield Handle(made.handle)
        system.sync(made.handle)
        system.replace(made.path, place.path)
        system.sync_folder(folder)
    except BaseException:
        with suppress(OSError):
            system.remove(made.path)
        raise
    finally:
        release(made)


def append(what: str, path: Path, content: bytes) -> None:
    """Write bytes at the end of a file, and wait until they are on the disk.

    Raises:
        HeadscopeError: something is in the way that is no plain file.
        OSError: the file cannot be written.
    """
    handle = system.append_to(destination(what, path).path)
    try:
        system.write(handle, content)
        system.sync(handle)
    finally:
        os.close(handle)


def destination(what: str, target: Path) -> Place:
    """Where a file goes: to the path, or to what a link of that name points to.

    Raises:
        HeadscopeError: something stands there that is never replaced.
    """
    real = target
    if target.is_symlink():
        real = Path(os.path.realpath(target))
    try:
        about = os.lstat(real)
    except FileNotFoundError:
        return Place(real, None)
    kind = next((name for test, name in KINDS.items() if test(about.st_mode)), None)
    if kind == "a folder":
        raise HeadscopeError(f"{what}: {target} is a folder; give the path of a file in it.")
    if kind is not None or stat.S_ISLNK(about.st_mode):
        raise HeadscopeError(
            f"{what}: {target} is {kind or 'a link to itself'}, which is never replaced; give the path of a file."
        )
    if not os.access(real, os.W_OK):
        raise HeadscopeError(f"{what}: {target} is read-only, so it stays; give another path, or make it writable.")
    return Place(real, stat.S_IMODE(about.st_mode))


def reason(error: BaseException) -> str:
    """What the system says about an error."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
