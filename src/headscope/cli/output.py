"""Where the result goes: checked before the work begins."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from headscope.cli.status import warn
from headscope.errors import HeadscopeError, MissingExtra
from headscope.files.places import check_file, check_folder, path_of, with_suffix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_SUFFIXES = (".html", ".htm")
FIGURE_SUFFIXES = (".png", ".svg", ".pdf")
TABLE_SUFFIXES = (".csv", ".parquet")
DEFAULT_PAGE = "headscope.html"

# Every page that headscope writes says so near its beginning.
MARK = b'name="generator" content="headscope'


def choose(
    output: str | None, default: str = DEFAULT_PAGE, suffixes: tuple[str, ...] = (*PAGE_SUFFIXES, *FIGURE_SUFFIXES)
) -> Path:
    """The file to write: what was asked for, or a page of a default name in the working directory.

    A file that was named is replaced. Without a name only a page that headscope wrote is replaced.

    Args:
        suffixes: the endings that mean something.

    Raises:
        MissingExtra: a figure, and matplotlib is not installed; a Parquet file, and pyarrow is not.
        HeadscopeError: the suffix means nothing, the folder cannot be written, or the file is somebody else's.
    """
    path = path_of("-o", default if output is None else output)
    if path.suffix.lower() not in suffixes:
        known = ", ".join(suffix for suffix in suffixes if suffix != ".htm")
        raise HeadscopeError(
            f"-o {output}: {'no' if not path.suffix else 'an unknown'} extension. Give a name that ends with {known}."
        )
    if is_figure(path) and importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra(f"-o {output}: figures are drawn with matplotlib: pip install 'headscope[plot]'")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtra(f"-o {output}: .parquet needs pyarrow. pip install pyarrow, or give a .csv file.")
    if path.is_dir():
        raise HeadscopeError(f"-o {path}: this is a folder. Give the name of a file in it.")
    check_file("-o", path)
    if output is None and path.exists() and not ours(path):
        raise HeadscopeError(
            f"{path} exists and was not written by headscope, so it stays. Name the file to write with -o PAGE.html"
        )
    return path


def folder(output: str, *, overwrite: bool) -> Path:
    """The folder of a recording to write.

    Raises:
        HeadscopeError: it is there already and is not to be replaced, or cannot be written.
    """
    from headscope.recording.folder.reader import SUFFIX

    path = path_of("-o", output)
    check_folder("-o", path)
    for one in dict.fromkeys((path, with_suffix(path, SUFFIX))):
        if one.exists() and not overwrite:
            raise HeadscopeError(f"-o {one}: this exists already. Give another name, or --overwrite.")
    return path


def save_figure(figure: Figure, target: Path) -> None:
    """Write a figure in the format that the path asks for, whole or not at all."""
    from headscope.files.replace_file import write

    content = io.BytesIO()
    figure.savefig(content, format=target.suffix[1:].lower())
    write("figure", target, content.getvalue())


def launch(path: Path) -> None:
    """Open a file with what this machine opens it with, or say that nothing does."""
    if typer.launch(str(path.absolute())):
        warn(f"nothing on this machine opens {path.suffix} files; the file is written.")


def ours(path: Path) -> bool:
    """Whether a file is a page that headscope wrote."""
    with path.open("rb") as file:
        return MARK in file.read(4096)


def is_figure(path: Path) -> bool:
    """Whether a path asks for a figure, not for a page."""
    return path.suffix.lower() in FIGURE_SUFFIXES
