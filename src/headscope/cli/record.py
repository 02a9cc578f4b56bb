"""`headscope record`: what the heads of a model did with a text, kept in a folder."""

from __future__ import annotations

from typing import Annotated

import typer

from headscope.cli.generating import GENERATE
from headscope.cli.json_output import JSON, about, emit
from headscope.cli.reading import BESIDE, ENCODING, MODEL, PAIR, read
from headscope.cli.source import is_folder
from headscope.cli.status import say
from headscope.errors import HeadscopeError


def record(
    given: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="A text, a file (a text, a picture, a sound), or - for standard input."),
    ],
    beside: Annotated[str | None, typer.Argument(metavar="TEXT", help=BESIDE, show_default=False)] = None,
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="The folder to write; named NAME.headscope.")
    ],
    model: Annotated[str | None, typer.Option(metavar="DIR_OR_ID", help=MODEL)] = None,
    pair: Annotated[str | None, typer.Option(metavar="TEXT|FILE", help=PAIR)] = None,
    encoding: Annotated[str | None, typer.Option(metavar="NAME", help=ENCODING)] = None,
    generate: Annotated[int | None, typer.Option("--generate", metavar="N", min=1, help=GENERATE)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the recording in DIR.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Run a model on a text, a picture or a sound, and save its heads.

    Any weight can be computed from the folder later, by `headscope view`, `heads`, `compare` and `serve`, or in Python
    by `hs.load`. It holds the queries, keys and values of every head, so it grows with the length of the input, not
    with its square.
    """
    from headscope.cli import output as outputs
    from headscope.cli.status import busy

    if is_folder(given):
        raise HeadscopeError(f"record: {given} is a folder. Give a text, a text file, or - for standard input.")
    target = outputs.folder(output, overwrite=overwrite)
    recording = read(given, model, pair, encoding, generate, beside).recording
    with busy("writing"):
        path = recording.save(target, overwrite=overwrite)
    if as_json:
        emit({"recording": path} | about(recording))
    else:
        say(f"{recording}\nrecording: {path.absolute()}")
