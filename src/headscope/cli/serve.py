"""`headscope serve`: the map of any head of recordings of any length, in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from headscope.cli.status import busy, say


def serve(
    recordings: Annotated[
        list[str],
        typer.Argument(metavar="DIR...", help="One or several recordings, as `headscope record` writes them."),
    ],
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="The port; 0 takes a free one.")] = 0,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Where to listen. Others can only reach it when this says so, with a token."
        ),
    ] = "127.0.0.1",
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A page of another server that may read the answers, such as HiGlass."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the map in a browser.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Show every head of a recording as a map that pans and zooms, at any length, until Ctrl-C.

    Fine parts are computed when they are looked at. The coarse ones come from one pass per head that runs in the
    background; it is kept beside the recording, in NAME.headscope.tiles, and goes on where it was.
    """
    import headscope as hs

    with busy("opening"):
        served = hs.serve(recordings, port=port, host=host, origins=allow_origin or (), open_page=open_page)
    with served:
        say(f"map: {served.url}\nCtrl-C ends it.")
        served.wait()
