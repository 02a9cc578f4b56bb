"""The name that a command was given -> the folder of a recording, where it is one."""

from __future__ import annotations

from pathlib import Path

from headscope.characters import shortened, visible
from headscope.cli.source import is_folder
from headscope.files.places import with_suffix

SUFFIX = ".headscope"


def recording_named(given: str) -> Path | None:
    """The folder of the recording that an argument names, with or without `.headscope`; None where it is a text.

    A word that is also the name of a folder without a recording in it is a text; a path, or a name that ends with
    `.headscope`, can only be meant as a folder. A file of that name comes first.
    """
    short = path_of(given)
    if short is None or is_file(short):
        return None
    for path in (short, with_suffix(short, SUFFIX)):
        if is_folder(str(path)) and holds_recording(path):
            return path
    meant = "/" in given or given in (".", "..") or given.startswith("~") or given.endswith(SUFFIX)
    return short if meant and is_folder(given) else None  # whoever opens it says what is wrong


def note_on(given: str, folder: Path | None) -> str | None:
    """What is said of a name that could be meant in two ways; None where it could not.

    Args:
        folder: the recording that it was taken for.
    """
    name = shortened(visible(given), 60)
    if folder is not None:
        unsaid = folder.name.endswith(SUFFIX) and not given.rstrip("/").endswith(SUFFIX) and "/" not in given
        return f"{name} is taken for the recording {visible(folder.name)}; pipe it in as a text." if unsaid else None
    if given.strip() and given != "-" and is_folder(given):
        return f"the folder {name} holds no recording, so the text is looked at; a folder is meant by its path."
    return None


def path_of(given: str) -> Path | None:
    """An argument as a path; None where it cannot be one."""
    if not given.strip() or given == "-":
        return None
    try:
        return Path(given).expanduser() if given.startswith("~") else Path(given)
    except RuntimeError:
        return None  # no such user


def is_file(path: Path) -> bool:
    """Whether a path is that of a file; names that no file can have are none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def holds_recording(folder: Path) -> bool:
    """Whether a folder has what a recording has, or the parts of several processes in it."""
    try:
        return (folder / "recording.json").exists() or any(folder.glob(f"rank-*{SUFFIX}"))
    except OSError:
        return True  # whoever opens it says why it cannot be read
