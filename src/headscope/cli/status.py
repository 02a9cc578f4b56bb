"""What a command says: results on stdout, notes on stderr, and what is going on while it takes long."""

from __future__ import annotations

import gc
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from headscope.characters import printable, sentence


def say(text: str) -> None:
    """Print a result; whatever is quoted in it, nothing of it acts on the terminal."""
    typer.echo(printable(text))


def warn(line: str) -> None:
    """Say a line on stderr and go on."""
    typer.echo(f"headscope: {sentence(line)}", err=True)


def wrapped(before: str, text: str) -> str:
    """A line whose text is wrapped at the width of the terminal, indented as far as it begins; whole where none reads.

    Example:
        >>> wrapped("  - cuda ", "none here")
        '  - cuda none here'
    """
    width = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or len(before) + 20 > width:
        return (before + text).rstrip()
    indent = " " * len(before)
    lines = textwrap.wrap(text, width - 1, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return before.rstrip() if not lines else before + "\n".join(lines)[len(before) :]


@contextmanager
def busy(text: str) -> Iterator[None]:
    """Show what is being done and for how long already; the line vanishes at the end."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(sentence(text), total=None)
        yield


@contextmanager
def collecting_later() -> Iterator[None]:
    """Leave garbage where it is for a while: imports make many objects that stay, and searching them takes a second."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
