"""`headscope compare`: two recordings of one input side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headscope.cli.json_output import JSON, emit
from headscope.cli.status import say

if TYPE_CHECKING:
    from headscope.recording.recording import Recording


def compare(
    a: Annotated[str, typer.Argument(metavar="DIR", help="A recording.")],
    b: Annotated[str, typer.Argument(metavar="DIR", help="Another one, of the same input.")],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="The page (.html) to write; compare.html unless given."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the result when it is written.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Write a page that compares two recordings of the same input.

    It shows each head side by side, and how much of its weight moved. The recordings are those of `headscope record`,
    of `recording.save`, or two looks of a training (`hs.Watch`).
    """
    import headscope as hs
    from headscope.cli import output as outputs
    from headscope.cli.status import busy
    from headscope.files.places import path_of

    target = outputs.choose(output, "compare.html", outputs.PAGE_SUFFIXES)
    paths = [path_of("compare", name) for name in (a, b)]
    with busy("reading"):
        recordings = hs.load(paths[0]), hs.load(paths[1])
    names = paths[0].resolve().stem, paths[1].resolve().stem
    with busy("writing"):
        path = hs.compare(*recordings, target, names=names)
    if as_json:
        emit({"page": path, "names": names, "moved": moved(*recordings)})
    else:
        say(f"page: {path.absolute()}")
    if open_page:
        outputs.launch(path)


def moved(a: Recording, b: Recording) -> list[dict[str, float | int]]:
    """For every head of the first item how much of its weight moved, the most first."""
    from headscope.view.compare import Pair, moved_of

    found = moved_of(Pair("", a, b), 0)
    rows: list[dict[str, float | int]] = [
        {"layer": number, "head": head, "moved": share}
        for number, layer, shares in zip(a.numbers, a.layers, found, strict=True)
        for head, share in zip(layer.head_numbers, shares, strict=True)
    ]
    return sorted(rows, key=lambda row: -row["moved"])
