"""Files that came from elsewhere are read up to a bound, and only if they are plain files."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from headscope.errors import HeadscopeError
from headscope.files.replace_file import KINDS, reason


def read_bounded(file: Path, most: int, fail: Callable[[str], HeadscopeError], *, follow: bool = False) -> bytes:
    """The bytes of a plain file of at most `most` bytes; links are followed only where `follow` says so.

    Raises:
        HeadscopeError: made by `fail`: it is not there, a link, no plain file, too large, or cannot be read.
    """
    plain(file, fail, follow=follow)
    try:
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb") as data:
            size = os.fstat(handle).st_size
            content = b"" if size > most else data.read(most + 1)
    except OSError as error:
        raise fail(f"{file}: cannot be read: {reason(error)}.") from None
    if max(size, len(content)) > most:
        raise fail(f"{file}: is {size} bytes long and may have {most}; it is damaged, or something else.")
    return content


def plain(file: Path, fail: Callable[[str], HeadscopeError], *, follow: bool = False) -> None:
    """Raise what `fail` makes unless this is a plain file, and no link out of its folder."""
    try:
        mode = os.stat(file, follow_symlinks=follow).st_mode
    except OSError as error:
        raise fail(f"{file}: cannot be read: {reason(error)}.") from None
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in KINDS.items() if test(mode)), "a link")
        raise fail(f"{file}: is {kind} and not a plain file; nothing outside its folder is read.")
