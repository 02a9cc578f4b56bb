"""Temporary names beside the place that is written, whose owner can be seen to live; what dead ones left is removed.

```text
.headscope-4711-1f0c33aa92d1.part     a file or a folder that process 4711 writes, locked for as long as it lives
```

The name does not depend on the target's, so that it is never too long. A lock is freed by the end of its process,
however it ends, and it also holds between containers that share a disk: a number of a process says less.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headscope.files import system

PART = re.compile(r"\.headscope-\d+-[0-9a-f]{12}\.part")
# The names of the files in the folders that are written as a whole: recordings and checkpoints.
OURS = re.compile(r"layer-\d{5,}\.safetensors|(model|state)\.safetensors|(recording|checkpoint)\.json")
# What `save_pretrained` of a model and of a tokenizer writes.
BY_LIBRARIES = re.compile(
    r"config\.json|generation_config\.json|model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|training_args\.bin"
    r"|tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json|chat_template\.jinja"
    r"|vocab\.(txt|json)|merges\.txt|(spiece|sentencepiece|tokenizer)(\.bpe)?\.model|README\.md"
)


@dataclass
class Claim:
    """A temporary file or folder of this process, and the handle that holds its lock until it is released."""

    path: Path
    handle: int
    held: bool = True


def claim(folder: Path, *, a_folder: bool = False) -> Claim:
    """Make a temporary file, or a temporary folder, in a folder."""
    while True:
        path = folder / f".headscope-{os.getpid()}-{secrets.token_hex(6)}.part"
        if a_folder:
            system.make_folder(path)
            try:
                handle = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
        else:
            handle = system.create(path)
        # Between making and locking, another process may have taken it for a leftover; then there is a next name.
        system.lock(handle, wait=True)
        if is_same(path, handle):
            return Claim(path, handle)
        os.close(handle)


def release(made: Claim) -> None:
    """Close the handle of a claim, once: its number may be that of another file afterwards."""
    if made.held:
        made.held = False
        os.close(made.handle)


def retire(path: Path) -> None:
    """Remove a folder of headscope's: first its name, in one step, then what is in it.

    Killed in between, it is a leftover that the next one to write there removes. With a stranger's file in it the
    folder keeps its name and that file.
    """
    if all(OURS.fullmatch(inner.name) for inner in path.iterdir()):
        gone = path.with_name(f".headscope-{os.getpid()}-{secrets.token_hex(6)}.part")
        system.rename(path, gone)
        path = gone
    discard(path)


def is_same(path: Path, handle: int) -> bool:
    """Whether a path still means what a handle was opened for."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders of processes that have ended. What cannot be removed stays."""
    if not system.CAN_LOCK:
        return
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if PART.fullmatch(entry.name)]
    except OSError:
        return
    for path in found:
        with suppress(OSError):
            discard_if_dead(path)


def discard_if_dead(path: Path) -> None:
    """Remove a temporary file or folder, unless a living process holds it or it is something else."""
    mode = os.lstat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        if system.lock(handle) and is_same(path, handle):
            discard(path, re.compile(f"{OURS.pattern}|{BY_LIBRARIES.pattern}"))
    finally:
        os.close(handle)


def discard(path: Path, names: re.Pattern[str] = OURS) -> None:
    """Remove a file, or a folder with what is headscope's in it; a folder stays while something else is in it.

    Others may do the same at the same time: what is gone is gone.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            system.remove(path)
            return
        for inner in sorted(path.iterdir()):
            # A file with a second name was taken over to the folder that replaced this one.
            if names.fullmatch(inner.name) or PART.fullmatch(inner.name) or inner.lstat().st_nlink > 1:
                with suppress(OSError):
                    system.remove(inner)
        with suppress(OSError):
            system.remove_folder(path)
