"""`headscope record`: what the heads of a model did with a text, kept in a folder."""

from __future__ import annotations

from typing import Annotated

import typer

from headscope.cli.reading import MODEL, PAIR, is_recording, read
from headscope.errors import HeadscopeError


def record(
    given: Annotated[str, typer.Argument(metavar="INPUT", help="A text, a text file, or - for standard input.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="The folder to write; named NAME.headscope.")
    ],
    model: Annotated[str | None, typer.Option(metavar="DIR_OR_ID", help=MODEL)] = None,
    pair: Annotated[str | None, typer.Option(metavar="TEXT|FILE", help=PAIR)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the recording in DIR.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Run a model on a text and keep its heads in a folder, from which any weight can be computed later.

    The folder goes to `headscope view`, `heads` and `compare`, and to `hs.load`. It holds the queries, keys and values
    of every head, so it grows with the length of the text, not with its square.
    """
    from headscope.cli import output as outputs
    from headscope.cli.status import busy

    if is_recording(given):
        raise HeadscopeError(f"record: {given} is a folder. Give a text, a text file, or - for standard input.")
    target = outputs.folder(output, overwrite=overwrite)
    recording = read(given, model, pair)[0]
    with busy("writing"):
        path = recording.save(target, overwrite=overwrite)
    typer.echo(f"{recording}\nrecording: {path.absolute()}")
