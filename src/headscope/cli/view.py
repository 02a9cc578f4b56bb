"""`headscope view`: a text -> what every head of a model attends to in it."""

from __future__ import annotations

import textwrap
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from headscope.cli.progress import busy, collecting_later
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from pathlib import Path

    from headscope.look.head import Head
    from headscope.recording.recording import Recording

# Letters of the text that stand at the top of the page.
TITLE = 90


def view(
    text: Annotated[str, typer.Argument(metavar="TEXT|FILE|-", help="A text, a text file, or - for standard input.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR_OR_ID",
            help="A folder, or a name on the Hugging Face Hub; the packaged all-MiniLM-L6-v2 unless given.",
        ),
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT|FILE",
            help="A second text: the second segment, or what the decoder of an encoder-decoder model reads.",
        ),
    ] = None,
    layer: Annotated[int | None, typer.Option(metavar="L", min=0, help="The layer to look at, from 0.")] = None,
    head: Annotated[
        int | None, typer.Option(metavar="H", min=0, help="The head of that layer to look at, from 0.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The page (.html) or figure (.png, .svg, .pdf) to write; headscope.html unless given.",
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the result when it is written.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """See what every head of a model attends to in a text.

    Prints a small picture of each head and what the heads do in plain words, and writes a page (one HTML file that
    needs no network) in which every weight can be looked at.

    With --layer and --head that head is shown large, with its strongest pairs, and the page opens with it; with --layer
    alone it is the most telling head of that layer. A figure shows the head, all heads of the layer, or all heads.

    A text that is longer than the model takes is cut at its end, and how many tokens were cut is said. A file that -o
    names is replaced; headscope.html is only replaced when headscope wrote it.
    """
    from headscope.cli import output as outputs
    from headscope.cli.source import read_text

    if head is not None and layer is None:
        raise HeadscopeError(f"--head {head} is given without a layer. Give both: --layer L --head {head}")
    target = outputs.choose(output)
    content = read_text(text)
    second = None if pair is None else read_text(pair)
    recording = recorded(content, second, model)
    with busy("writing"):
        write(recording, target, layer, head, textwrap.shorten(content, TITLE, placeholder=" …"))
    show(recording, layer, head)
    typer.echo(f"\n{'figure' if outputs.is_figure(target) else 'page'}: {target.absolute()}")
    if open_page and typer.launch(str(target.absolute())):
        warn(f"nothing on this machine opens {target.suffix} files; the file is written.")


def recorded(text: str, pair: str | None, name: str | None) -> Recording:
    """Run a model on a text and record it; what is not as one would think is said on stderr."""
    import headscope as hs
    from headscope.hf import models
    from headscope.hf.text import encode, run

    with busy(f"loading {name or models.PACKAGED_NAME}"), collecting_later():
        quiet()
        loaded = models.load(name)
    with busy("reading"):
        encoded = encode(loaded, text, pair)
        with hs.record(loaded.model) as recording:
            run(loaded, encoded)
    recording.model = loaded.name
    recording.tokens(encoded.axis, side=None if encoded.decoder is None else "encoder")
    if encoded.decoder is not None:
        recording.tokens(encoded.decoder, side="decoder")
    if encoded.cut:
        warn(
            f"the text has {encoded.axis.length + encoded.cut} tokens and {loaded.name} takes {loaded.limit}: "
            f"the last {encoded.cut} were cut. Give a model that takes more with --model, or a shorter text."
        )
    if loaded.absent:
        warn(
            f"{len(loaded.absent)} weights of {loaded.name} are not in its files and therefore random "
            f"({loaded.absent[0]}, ...): what you see is not the trained model."
        )
    return recording


def write(recording: Recording, target: Path, layer: int | None, head: int | None, title: str) -> None:
    """Write the page or the figure, whole or not at all."""
    from headscope.cli.output import is_figure

    if not is_figure(target):
        from headscope.view.page import page

        page(recording, target, layer=layer, head=head, title=title)
        return
    import io

    from headscope.view.figure import figure
    from headscope.view.write import write as write_whole

    content = io.BytesIO()
    figure(recording, layer=layer, head=head).savefig(content, format=target.suffix[1:].lower())
    write_whole("figure", target, content.getvalue())


def show(recording: Recording, layer: int | None, head: int | None) -> None:
    """Print the heads, what they do, one head with its tokens, and of a chosen head its strongest pairs."""
    from headscope.view import show as views

    views.show(recording, layer=layer, head=head)
    if layer is not None and head is not None:
        typer.echo(f"\nstrongest pairs of layer {layer} head {head}, special tokens left out")
        for query, key, weight in strongest(recording[layer, head]):
            typer.echo(f"  {weight:.2f}  {query} → {key}")


def strongest(head: Head, count: int = 8) -> list[tuple[str, str, float]]:
    """The pairs of query and key with the largest weights, among what is content on both sides."""
    top = head.top(min(3, len(head.k)))
    pairs = [
        (weight, query, key)
        for query, (weights, keys) in enumerate(zip(top.weights.tolist(), top.keys.tolist(), strict=True))
        for weight, key in zip(weights, keys, strict=True)
        if not head.queries.special[query] and not head.keys.special[key]
    ]
    pairs.sort(key=lambda pair: -pair[0])
    return [(head.queries.label(query), head.keys.label(key), weight) for weight, query, key in pairs[:count]]


def quiet() -> None:
    """No progress bars and no notices of transformers between our lines; errors still arrive as exceptions."""
    with suppress(ImportError):  # models.load says what is missing and how to get it
        from transformers.utils import logging

        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def warn(line: str) -> None:
    """Say a line on stderr and go on."""
    typer.echo(f"headscope: {line}", err=True)
