"""`headscope heads`: what every head does, in numbers, over one text, a recording, or a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headscope.cli.reading import MODEL
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.look.table import Table


def heads(
    given: Annotated[
        str | None,
        typer.Argument(metavar="[INPUT|DIR]", help="A text, a text file, - for standard input, or a recording."),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(metavar="FILE", help='Many texts: a .jsonl file with "text" in each line, or a .txt of lines.'),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="DIR_OR_ID", help=MODEL)] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Sort by a column; a - before it turns it.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the table: .csv or .parquet.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Print a table of all heads: entropy, confidence, previous, self, next, first, special, duplicate, induction.

    With --corpus the means are over all texts. What is done is kept beside FILE in FILE.heads.json every few seconds,
    so a run that was stopped goes on where it was when it is started again; the file is removed at the end. Under
    torchrun the processes share the texts, and the first one prints the same table as one process would.
    """
    if (given is None) == (corpus is None):
        raise HeadscopeError("heads: give a text or a recording, or else --corpus FILE.")
    target = None if output is None else table_path(output)
    table = of_corpus(Path(str(corpus)), model) if corpus is not None else of_input(str(given), model)
    if table is None:
        return
    if sort is not None:
        table = table.sort(sort.removeprefix("-"), descending=sort.startswith("-"))
    show(table)
    if target is not None:
        typer.echo(f"\ntable: {table.save(target).absolute()}")


def of_input(given: str, model: str | None) -> Table:
    """The heads of one text, or of a recording on disk."""
    from headscope.cli.reading import read
    from headscope.cli.status import busy

    recording = read(given, model)[0]
    with busy("looking"):
        return recording.heads()


def of_corpus(path: Path, model: str | None) -> Table | None:
    """The heads over all texts of a corpus; None in all processes but the first."""
    from headscope.cli.corpus import accumulate

    return accumulate(path, model)


def show(table: Table) -> None:
    """Print the table: with rules on a terminal, plain elsewhere."""
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        console.print(table)
    else:
        typer.echo(str(table))


def table_path(output: str) -> Path:
    """Where the table goes, checked before the work begins."""
    path = Path(output).expanduser()
    if path.suffix not in (".csv", ".parquet"):
        raise HeadscopeError(f"-o {output}: give the name of a .csv or .parquet file.")
    if not path.parent.is_dir():
        raise HeadscopeError(f"-o {output}: there is no folder {path.parent}. Make it first, or give another path.")
    if path.suffix == ".parquet":
        import importlib.util

        if importlib.util.find_spec("pyarrow") is None:
            raise HeadscopeError(f"-o {output}: .parquet needs pyarrow. pip install pyarrow, or give a .csv file.")
    return path
