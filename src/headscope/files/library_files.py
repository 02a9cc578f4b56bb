"""Files that other libraries write, such as the model of `save_pretrained`: each takes its place whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headscope.errors import HeadscopeError
from headscope.files import system
from headscope.files.claims import BY_LIBRARIES, claim, discard, release, sweep
from headscope.files.replace_file import destination, reason

# A folder with weights and without this file is no model yet, so it comes last.
LAST = "config.json"


@contextmanager
def library_files(what: str, folder: Path) -> Iterator[Path]:
    """A folder for a library to write to; when the block ends its files are flushed and moved into `folder`.

    A process that ends in between leaves old files and new ones there, each of them whole, and never half of one. The
    next to write there removes what it had not moved yet.

    Args:
        what: who writes, for messages.
        folder: is there already.

    Raises:
        HeadscopeError: a file cannot be written, or something stands in its place that is never replaced.
    """
    try:
        sweep(folder)
        made = claim(folder, a_folder=True)
        try:
            yield made.path
            found = [path.relative_to(made.path) for path in made.path.rglob("*") if not path.is_dir()]
            for name in sorted(found, key=lambda name: (name.name == LAST, name)):
                move(what, made.path / name, folder / name)
            system.sync_folder(folder)
        finally:
            discard(made.path, BY_LIBRARIES)
            release(made)
    except OSError as error:
        raise HeadscopeError(
            f"{what}: {folder} cannot be written ({reason(error)}): make room for it, or give another path."
        ) from error


def move(what: str, file: Path, target: Path) -> None:
    """Flush a file, and move it to its place."""
    place = destination(what, target)
    handle = os.open(file, os.O_RDONLY)
    try:
        if place.mode is not None:
            system.set_mode(handle, place.mode)
        system.sync(handle)
    finally:
        os.close(handle)
    system.make_folders(place.path.parent)
    system.replace(file, place.path)
