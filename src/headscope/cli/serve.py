"""`headscope serve`: the map of any head of recordings of any length, in the browser."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from headscope.cli.status import busy, say


def serve(
    recordings: Annotated[
        list[str],
        typer.Argument(metavar="DIR", help="One or several recordings, as `headscope record` writes them."),
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
    fill: Annotated[
        bool, typer.Option("--fill", help="Make the coarse levels, share the work with other processes, and end.")
    ] = False,
    heads: Annotated[
        str | None, typer.Option(metavar="L.H,…", help="With --fill: these heads, such as 3.1,5.11; all without it.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Show every head as a map that pans and zooms, at any length.

    Starts a server, prints its address and runs until Ctrl-C. Fine parts are computed when they are looked at. The
    coarse ones come from one pass per head that runs in the background; it is kept beside the recording, in
    NAME.headscope.tiles, and goes on where it was. With --fill it runs beforehand, in as many processes as are started,
    such as by torchrun --no-python.
    """
    import headscope as hs
    from headscope.server.run import check_installed

    check_installed()
    if fill or heads is not None:
        fill_levels(recordings, fill, heads)
        return
    with busy("opening"):
        served = hs.serve(recordings, port=port, host=host, origins=allow_origin or (), open_page=open_page)
    with served:
        say(f"map: {served.url}\nCtrl-C ends it.")
        served.wait()


def fill_levels(recordings: list[str], fill: bool, heads: str | None) -> None:
    """Make the levels of heads; the first of the processes that share the work names those that are there.

    Raises:
        HeadscopeError: heads without `--fill`, or none that a recording has.
    """
    from headscope.cli.ablate import parse
    from headscope.errors import HeadscopeError
    from headscope.server.prefill import prefill

    if not fill:
        raise HeadscopeError("serve: --heads goes with --fill; every head is served.")
    with busy("making the levels"):
        for one in prefill(recordings, None if heads is None else parse(heads)):
            if os.environ.get("RANK", "0") == "0":
                say(f"{one.recording}: layer {one.layer} head {one.head} item {one.item}: {one.queries} queries")
