"""The calls to the system by which anything on a disk is made, changed or removed; no other file has any.

Each is one step: `tests/safety` ends the process before and after every one of them in turn.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and nothing that another process left is removed
    fcntl = None

CAN_LOCK: bool = fcntl is not None

# Flags of renameat2(2), and the file descriptor that means "relative to the working directory".
NOREPLACE, EXCHANGE, AT_FDCWD = 1, 2, -100
# What a file system answers that does not know them.
UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)


def create(path: Path, mode: int = 0o666) -> int:
    """A new file, open for writing and reading; fails where anything has its name."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)


def append_to(path: Path) -> int:
    """A plain file, open for writing at its end; made where there is none. No link is followed, no pipe waited for."""
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | careful, 0o666)


def write(handle: int, content: Any) -> None:
    """Write all bytes of a buffer."""
    view = memoryview(content).cast("B") if memoryview(content) else memoryview(b"")
    while view:
        view = view[os.write(handle, view) :]


def set_mode(handle: int, mode: int) -> None:
    """Give a file the permissions of the one that it replaces, where the system and its file system have any."""
    with suppress(PermissionError, NotImplementedError):
        os.fchmod(handle, mode)


def sync(handle: int) -> None:
    """Wait until a file is on the disk."""
    os.fsync(handle)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the file system can do that."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise
    finally:
        os.close(handle)


def replace(source: Path, target: Path) -> None:
    """Give a file another name, in the place of the file that has it."""
    os.replace(source, target)


def rename(source: Path, target: Path) -> None:
    """Give a folder a name that nothing has.

    Raises:
        FileExistsError: something has it.
    """
    if _renameat2(source, target, NOREPLACE):
        return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two files or folders in one atomic step; false where this system cannot."""
    return _renameat2(one, other, EXCHANGE)


def link(source: Path, target: Path) -> None:
    """Give a file a second name."""
    os.link(source, target, follow_symlinks=False)


def remove(path: Path) -> None:
    """Remove a file."""
    os.unlink(path)


def make_folder(path: Path) -> None:
    """Make a folder."""
    os.mkdir(path)


def make_folders(path: Path) -> None:
    """Make a folder, and those around it, where they are not there yet."""
    os.makedirs(path, exist_ok=True)


def remove_folder(path: Path) -> None:
    """Remove an empty folder."""
    os.rmdir(path)


def lock(handle: int, *, wait: bool = False) -> bool:
    """Hold a file or folder until its handle is closed, also by the death of the process; false where another does."""
    if not CAN_LOCK:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


@contextmanager
def folder_held(path: Path) -> Iterator[None]:
    """Let one process or thread at a time move folders within a folder, where the system can hold it."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        lock(handle, wait=True)
        yield
    finally:
        os.close(handle)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    """Rename by renameat2(2); false where the system or the file system does not have it."""
    function = _function()
    if function is None:
        return False
    if function(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


@cache
def _function() -> Any:
    """renameat2(2) of the C library; None where it has none."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    function.restype = ctypes.c_int
    return function
