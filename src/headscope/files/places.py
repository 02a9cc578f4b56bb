"""Where results will be written: paths as people write them, checked before the work begins."""

from __future__ import annotations

import os
from pathlib import Path

from headscope.errors import HeadscopeError
from headscope.files import system
from headscope.files.replace_file import destination, reason


def path_of(what: str, name: str) -> Path:
    """A path as a person writes it, `~` included.

    Raises:
        HeadscopeError: an empty name, one that no file can have, or the home of nobody.
    """
    if not name.strip():
        raise HeadscopeError(f"{what}: the name is empty. Give the name of a file or folder.")
    try:
        path = Path(name).expanduser()
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass  # whether there is a folder for it is asked by whoever writes
    except RuntimeError:
        raise HeadscopeError(f"{what} {name}: there is no user of that name here. Give the path in full.") from None
    except UnicodeEncodeError:
        raise HeadscopeError(f"{what} {name}: half of a letter cannot be in a name. Give another name.") from None
    except ValueError:
        raise HeadscopeError(f"{what} {name}: a zero byte cannot be in a name. Give another name.") from None
    except OSError as error:
        raise HeadscopeError(f"{what} {shown_end(name)}: {reason(error)}. Give another path.") from None
    return path


def shown_end(name: str, longest: int = 120) -> str:
    """A path, or the end of one that is too long to be read."""
    return name if len(name) <= longest else "…" + name[-longest:]


def check_file(what: str, path: Path) -> Path:
    """Raise `HeadscopeError` unless a file can be written at a path; gives the path."""
    try:
        if not path.is_symlink():
            check_inside(what, path, path.parent)
        place = destination(what, path)
    except OSError as error:
        raise HeadscopeError(f"{what} {shown_end(str(path))}: {reason(error)}. Give another path.") from None
    check_inside(what, path, place.path.parent)
    return path


def check_folder(what: str, path: Path, *, parents: bool = False) -> Path:
    """Raise `HeadscopeError` unless a folder can be made, or exchanged for a new one, at a path; gives the path.

    Args:
        parents: whether the folders around it are made, too.
    """
    # A link to itself has no end, which `Path.resolve` does not survive.
    real = Path(os.path.realpath(path))
    if not real.name:
        raise HeadscopeError(f"{what} {path}: this is no name for a new folder. Give one, such as out.")
    around = path.parent if path.name else real.parent
    while parents and not os.path.lexists(around):
        around = around.parent
    check_inside(what, path, around)
    return path


def check_inside(what: str, path: Path, folder: Path) -> None:
    """Raise `HeadscopeError` unless something can be made in a folder."""
    if not folder.is_dir():
        raise HeadscopeError(f"{what} {path}: there is no folder {folder}. Make it first, or give another path.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise HeadscopeError(f"{what} {path}: the folder {folder.absolute()} cannot be written. Give another path.")


def with_suffix(path: Path, suffix: str) -> Path:
    """A path whose name ends with a suffix: itself, or the name with the suffix; `.` and `..` by their real names.

    Example:
        >>> with_suffix(Path("a/b"), ".headscope"), with_suffix(Path("/"), ".headscope")
        (PosixPath('a/b.headscope'), PosixPath('/'))
    """
    if path.name in ("", ".."):
        path = path.resolve()
    return path if path.name.endswith(suffix) or not path.name else path.with_name(path.name + suffix)


def made_folder(what: str, path: str | os.PathLike[str]) -> Path:
    """A folder that results go to, made where it is not there yet, with those around it; gives its path.

    Raises:
        HeadscopeError: it cannot be made or written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as here:
        ...     made_folder("--to", Path(here) / "a" / "b").is_dir()
        True
    """
    folder = path_of(what, os.fspath(path))
    try:
        system.make_folders(folder)
    except OSError as error:
        raise HeadscopeError(f"{what} {folder}: the folder cannot be made: {reason(error)}. Give another.") from None
    check_inside(what, folder, folder)
    return folder
