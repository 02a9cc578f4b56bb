"""`headscope view`: a text, or a recording -> what every head of a model attends to in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headscope.characters import shortened, visible
from headscope.cli.generating import GENERATE
from headscope.cli.json_output import JSON, about, emit, rows_of
from headscope.cli.reading import BESIDE, ENCODING, MODEL, PAIR, Read, read
from headscope.cli.status import busy, say
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from pathlib import Path

    from headscope.look.axis import Axis
    from headscope.look.head import Head
    from headscope.recording.recording import Recording


def view(
    text: Annotated[
        str,
        typer.Argument(
            metavar="TEXT|FILE|-|DIR",
            help="A text, a file (a text, a picture, a sound), - for standard input, a recording, or a shared .zip.",
        ),
    ],
    beside: Annotated[str | None, typer.Argument(metavar="TEXT", help=BESIDE, show_default=False)] = None,
    model: Annotated[str | None, typer.Option(metavar="DIR_OR_ID", help=MODEL)] = None,
    pair: Annotated[str | None, typer.Option(metavar="TEXT|FILE", help=PAIR)] = None,
    encoding: Annotated[str | None, typer.Option(metavar="NAME", help=ENCODING)] = None,
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
    generate: Annotated[int | None, typer.Option("--generate", metavar="N", min=1, help=GENERATE)] = None,
    thumbnails: Annotated[
        bool,
        typer.Option("--thumbnails/--no-thumbnails", help="Put a picture or a spectrogram, small, into the page."),
    ] = True,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the result when it is written.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """See what every head attends to in a text, a picture or a sound.

    Prints a small picture of each head and what the heads do in plain words, and writes a page (one HTML file that
    needs no network) in which every weight can be looked at.

    With --layer and --head that head is shown large, with its strongest pairs, and the page opens with it; with --layer
    alone it is the most informative head of that layer. A figure shows the head, all heads of the layer, or all heads.

    A text that is longer than the model takes is cut at its end, and how many tokens were cut is said. A file that -o
    names is replaced; headscope.html is only replaced when headscope wrote it.
    """
    from headscope.cli import output as outputs

    if head is not None and layer is None:
        raise HeadscopeError(f"--head {head} is given without a layer. Give both: --layer L --head {head}")
    target = outputs.choose(output)
    found = read(text, model, pair, encoding, generate, beside)
    with busy("writing"):
        write(found, target, layer, head, thumbnails=thumbnails)
    what = "figure" if outputs.is_figure(target) else "page"
    if as_json:
        emit({what: target, "title": found.title, "made": found.made} | about(found.recording) | said(found.recording))
    else:
        show(found.recording, layer, head)
        say(f"\n{what}: {target.absolute()}")
    if open_page:
        outputs.launch(target)


def said(recording: Recording) -> dict[str, Any]:
    """What the heads do, and their statistics, for JSON."""
    findings = [
        {"layer": one.layer, "head": one.head, "kind": one.kind, "text": one.text, "evidence": dict(one.evidence)}
        for one in recording.patterns()
    ]
    return {"findings": findings, "heads": rows_of(recording.heads()), "times": times(recording)}


def times(recording: Recording) -> dict[str, Any] | None:
    """When the words of a sound were spoken, for JSON; None where no head tells."""
    from headscope.view.subject import Subject

    found = Subject("view", recording).times
    if found is None:
        return None
    tokens, words = ([one._asdict() for one in which] for which in (found.tokens, found.words))
    return {"tokens": tokens, "words": words, "heads": found.heads, "chosen_by": found.chosen_by}


def write(found: Read, target: Path, layer: int | None, head: int | None, *, thumbnails: bool = True) -> None:
    """Write the page or the figure, whole or not at all."""
    import headscope as hs
    from headscope.cli.output import is_figure, save_figure

    if is_figure(target):
        save_figure(hs.figure(found.recording, layer=layer, head=head), target)
        return
    options = {"layer": layer, "head": head, "title": found.title}
    hs.page(found.recording, target, **options, thumbnails=thumbnails, generated=found.made)  # type: ignore[arg-type]


def show(recording: Recording, layer: int | None, head: int | None) -> None:
    """Print the heads, what they do, one head with its tokens, and of a chosen head its strongest pairs."""
    from headscope.view import show as views

    views.show(recording, layer=layer, head=head)
    if layer is not None and head is not None:
        say(f"\nstrongest pairs of layer {layer} head {head}, special tokens left out")
        for query, key, weight in strongest(recording[layer, head]):
            say(f"  {weight:.2f}  {query} → {key}")


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
    return [(placed(head.queries, query), placed(head.keys, key), weight) for weight, query, key in pairs[:count]]


def placed(axis: Axis, position: int, longest: int = 40) -> str:
    """A label as it is read, with its place where others are the same.

    Example:
        >>> from headscope.look.axis import Axis
        >>> [placed(Axis.tokens(["a", "b", "a"]), i) for i in range(3)]
        ['a (0)', 'b', 'a (2)']
    """
    label = axis.label(position)
    shown = shortened(visible(label), longest)
    return f"{shown} ({position})" if axis.labels.count(label) > 1 else shown
