"""`headscope learn`: the lesson on a sentence of one's own, with the numbers of a real model."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headscope.cli.json_output import JSON, emit
from headscope.cli.reading import ENCODING, MODEL, PAIR, complete, loaded_model
from headscope.cli.status import busy, say
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.lesson.chapters import Chapter
    from headscope.lesson.worked_example import WorkedExample

SENTENCE = "The animal didn't cross the street because it was too tired."


def learn(
    text: Annotated[
        str, typer.Argument(metavar="TEXT|FILE|-", help="A sentence; a file, or - for standard input.")
    ] = SENTENCE,
    model: Annotated[str | None, typer.Option(metavar="DIR_OR_ID", help=MODEL)] = None,
    pair: Annotated[str | None, typer.Option(metavar="TEXT|FILE", help=PAIR)] = None,
    encoding: Annotated[str | None, typer.Option(metavar="NAME", help=ENCODING)] = None,
    layer: Annotated[
        int | None, typer.Option(metavar="L", min=0, help="The layer, from 0; the most informative one unless given.")
    ] = None,
    head: Annotated[int | None, typer.Option(metavar="H", min=0, help="The head of that layer, from 0.")] = None,
    token: Annotated[
        str | None, typer.Option(metavar="TOKEN|N", help="The query: a token as it is written, or its position.")
    ] = None,
    step: Annotated[bool, typer.Option("--step", help="Wait for Enter after each step.")] = False,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the lesson as a page (.html).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Learn attention on a sentence, number by number.

    Tokens, queries, keys and values, scores, weights, values, heads merged: each step with its formula, its shape and
    the numbers of a real model, for one token of the text and one head. The six pages of the lesson, with pictures, are
    in the documentation.
    """
    from headscope.cli import output as outputs

    if head is not None and layer is None:
        raise HeadscopeError(f"--head {head} is given without a layer. Give both: --layer L --head {head}")
    if step and as_json:
        raise HeadscopeError("--step waits for a reader and --json has none. Leave one out.")
    target = None if output is None else outputs.choose(output, suffixes=outputs.PAGE_SUFFIXES)
    example = worked(text, model, pair, encoding, layer, head, token)
    from headscope.lesson.as_page import page
    from headscope.lesson.chapters import chapters
    from headscope.lesson.shapes_table import shapes_table

    steps, table = chapters(example), shapes_table(example)
    if target is not None:
        page(example, steps, table, target)
    if as_json:
        emit(content(example, steps) | {"shapes": [step.cells()[:3] for step in table.steps], "written": target})
        return
    show(example, steps, wait=step)
    from headscope.cli.explain import show as show_table

    show_table(table)
    if target is not None:
        say(f"\nwritten: {target.absolute()}")


def worked(
    text: str,
    model: str | None,
    pair: str | None,
    encoding: str | None,
    layer: int | None,
    head: int | None,
    token: str | None,
) -> WorkedExample:
    """Run the model and work the example out."""
    from headscope.cli.source import read_text
    from headscope.hf.text import encode
    from headscope.lesson.worked_example import work_out

    text, second = read_text(text, encoding), None if pair is None else read_text(pair, encoding)
    loaded = loaded_model(model)
    with busy("reading"):
        encoded = encode(loaded, text, second)
        example = work_out(loaded, encoded, text, layer=layer, head=head, token=token)
    complete(loaded, encoded)
    return example


def show(example: WorkedExample, steps: list[Chapter], *, wait: bool) -> None:
    """Print the steps at the width of the terminal."""
    from rich.console import Console, Group
    from rich.text import Text

    from headscope.cli.explain import PIPED
    from headscope.lesson.cells import named
    from headscope.lesson.in_terminal import Printed
    from headscope.view.terminal import Encodable

    console = Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=PIPED)
    who = named(example.lens.queries.labels, example.query)
    title = f'{example.model}, layer {example.layer} head {example.head}: what does "{who}" look at?'
    console.print(Encodable(Group(Text(title, style="bold"), Text())))
    for number, step in enumerate(steps, 1):
        console.print(Encodable(Group(Printed(number, step))))
        if wait and sys.stdin.isatty():
            console.input("[dim]Enter: the next step [/dim]")


def content(example: WorkedExample, steps: list[Chapter]) -> dict[str, Any]:
    """Every number, for JSON."""
    lens = example.lens
    assert lens.v is not None
    found: dict[str, Any] = {
        "model": example.model,
        "text": example.text,
        "layer": example.layer,
        "head": example.head,
        "query": {"position": example.query, "token": lens.queries.labels[example.query]},
        "steps": [{"step": one.title, "formula": one.formula, "shape": one.shape, "text": one.text} for one in steps],
        "queries": lens.queries.labels,
        "keys": lens.keys.labels,
        "scale": lens.scale,
    }
    tensors = {
        "q": lens.q[example.query], "k": lens.k, "v": lens.v, "products": example.products, "scores": example.scores,
        "exponentials": example.exponentials, "weights": example.weights, "values": example.values,
        "merged": example.merged[example.query],
    }  # fmt: skip
    if example.x is not None:
        tensors["x"] = example.x[example.query]
    if example.output is not None:
        tensors["output"] = example.output.y[example.query]
    return found | {name: x.double().tolist() for name, x in tensors.items()} | {"difference": example.difference}
