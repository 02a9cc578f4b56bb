"""What a command says: results on stdout, notes on stderr, and what is going on while it takes long."""

from __future__ import annotations

import gc
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
