"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from headscope.errors import HeadscopeError


def write(what: str, path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file in one step: a temporary file beside it, which then takes its name.

    Raises:
        HeadscopeError: the path cannot be written; nothing is left behind.
    """
    target = Path(path).expanduser()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if target.is_dir():
            raise HeadscopeError(f"{what}: {target} is a folder; give the path of a file in it.")
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        hint = "make it first" if isinstance(error, FileNotFoundError | NotADirectoryError) else "give another path"
        folder = target.absolute().parent
        raise HeadscopeError(
            f"{what}: {target} cannot be written ({error.strerror}); the folder is {folder}: {hint}."
        ) from error
    return target
