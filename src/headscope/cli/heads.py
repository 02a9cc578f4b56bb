"""`headscope heads`: what every head does, in numbers, over one text, a recording, or a corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headscope.cli.json_output import JSON, emit, rows_of
from headscope.cli.reading import ENCODING, MODEL
from headscope.cli.status import say
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from pathlib import Path

    from headscope.look.table import Table


def heads(
    given: Annotated[
        str | None,
        typer.Argument(metavar="INPUT|DIR", help="A text, a text file, - for standard input, or a recording."),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='Many texts: a .txt of lines, or a .csv, .tsv, .jsonl or .parquet with a "text" in each row.',
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="DIR_OR_ID", help=MODEL)] = None,
    encoding: Annotated[str | None, typer.Option(metavar="NAME", help=ENCODING)] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Sort by a column; with a - before it, largest first.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the table: .csv or .parquet.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Print a table of statistics of all heads.

    The columns: entropy, confidence, previous, self, next, first, special, duplicate, induction.

    With --corpus the means are over all texts. What is done is kept beside FILE in FILE.heads.json every few seconds
    (where that cannot be written, in the user's cache), so a run that was stopped goes on where it was when it is
    started again with the same model, corpus and options; others are refused. The file is removed at the end. Under
    torchrun the processes share the texts, and the first one prints the same table as one process would.
    """
    from headscope.cli import output as outputs
    from headscope.files.places import path_of

    if (given is None) == (corpus is None):
        raise HeadscopeError("heads: give a text or a recording, or else --corpus FILE.")
    target = None if output is None else outputs.choose(output, suffixes=outputs.TABLE_SUFFIXES)
    if corpus is not None:
        table = of_corpus(path_of("--corpus", corpus), model, encoding)
    else:
        table = of_input(str(given), model, encoding)
    if table is None:
        return
    if sort is not None:
        table = table.sort(sort.removeprefix("-"), descending=sort.startswith("-"))
    path = None if target is None else table.save(target)
    if as_json:
        emit(rows_of(table) | {"table": path})
        return
    show(table)
    if path is not None:
        say(f"\ntable: {path.absolute()}")


def of_input(given: str, model: str | None, encoding: str | None) -> Table:
    """The heads of one text, or of a recording on disk."""
    from headscope.cli.reading import read
    from headscope.cli.status import busy

    recording = read(given, model, None, encoding).recording
    with busy("looking"):
        return recording.heads()


def of_corpus(path: Path, model: str | None, encoding: str | None) -> Table | None:
    """The heads over all texts of a corpus; None in all processes but the first."""
    from headscope.cli.corpus import accumulate

    return accumulate(path, model, encoding)


def show(table: Table) -> None:
    """Print the table: with rules on a terminal, plain elsewhere."""
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        console.print(table)
    else:
        say(str(table))
