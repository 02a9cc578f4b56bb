"""`headscope share`: a recording, or a page -> one file to send."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from headscope.characters import counted
from headscope.cli.json_output import JSON, emit
from headscope.cli.status import busy, say
from headscope.errors import HeadscopeError


def share(
    given: Annotated[
        str, typer.Argument(metavar="DIR|PAGE", help="A recording's folder, or a page (.html) that headscope wrote.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The file to write, NAME.zip.")],
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The title of the page; the name of DIR unless given.")
    ] = None,
    made_by: Annotated[
        str | None,
        typer.Option(
            "--made-by", metavar="COMMAND", help="The command or program that made the recording, to be kept."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Put a page and its recording into one zip file to send.

    The file also has versions, the command that made the recording, and checksums. Whoever gets it unzips it and opens
    index.html in a browser, without a network and without headscope; or gives it to `headscope view` and `heads` as it
    is. The same content gives the same file, byte for byte.
    """
    from headscope.cli import output as outputs
    from headscope.cli.source import is_folder
    from headscope.files.places import with_suffix
    from headscope.recording.folder.reader import SUFFIX
    from headscope.share.pack import share_page, share_recording

    target = outputs.choose(output, suffixes=(".zip",))
    command = made_by or shlex.join(["headscope", *sys.argv[1:]])
    source = Path(given).expanduser()
    folder = is_folder(given) or is_folder(str(with_suffix(source, SUFFIX)))
    if not folder and not (source.suffix.lower() in outputs.PAGE_SUFFIXES and source.is_file()):
        raise HeadscopeError(
            f"share: {given} is neither the folder of a recording nor a page (.html). Make one first: headscope record "
            "TEXT -o DIR, or headscope view TEXT -o PAGE.html"
        )
    with busy("packing"):
        content = (share_recording if folder else share_page)(source, target, command, title or "")
    if as_json:
        files = {name: {"size": entry.size, "sha256": entry.sha256} for name, entry in content.files.items()}
        emit({"shared": target, "title": content.title, "command": content.command, "files": files})
    else:
        say(f"{content.title}: {counted(len(content.files), 'file')}, {target.stat().st_size / 2**20:.2f} MiB")
        say(f"shared: {target.absolute()}")
