"""`headscope explain`: what a multi-head layer does, step by step."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headscope.cli.json_output import JSON, emit
from headscope.cli.status import say
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.nn.explanation import Explanation

# Columns in the order in which they are left out on a narrow terminal, and the fewest letters of a formula's line.
LEAST = ("bytes", "FLOPs", "parameters", "formula")
NUMBERS = ("parameters", "FLOPs", "bytes")
FORMULA = 26
PIPED = 120  # columns of what no terminal reads


def explain(
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="How many sequences.")] = 30,
    tokens: Annotated[int, typer.Option(metavar="N", min=1, help="How many tokens each has.")] = 5,
    input_dim: Annotated[int, typer.Option(metavar="N", min=1, help="Numbers in a token of the input.")] = 1024,
    embed_dim: Annotated[int, typer.Option(metavar="N", min=1, help="Numbers in a token of the output.")] = 512,
    heads: Annotated[int, typer.Option(metavar="N", min=1, help="How many heads.")] = 8,
    kv_heads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="How many key/value heads; as many as heads unless given.")
    ] = None,
    memory: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Cross-attention to a memory of so many tokens.")
    ] = None,
    causal: Annotated[bool, typer.Option("--causal", help="Each token sees itself and those before it.")] = False,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write it: .md, or a diagram as .png, .svg or .pdf."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Run a multi-head attention layer one step at a time.

    Prints the formula, shape, parameters, FLOPs and bytes of each step. Without options it is the example of the docs:
    30 sequences of 5 tokens with 1024 numbers each, 8 heads, to 512.
    """
    from headscope.cli import output as outputs
    from headscope.files.replace_file import write

    if causal and memory is not None:
        raise HeadscopeError("explain: --causal is about the tokens before one; a memory has none. Leave one out.")
    target = None if output is None else outputs.choose(output, suffixes=(".md", *outputs.FIGURE_SUFFIXES))
    found = explained(batch, tokens, input_dim, embed_dim, heads, kv_heads, memory, causal)
    if not as_json:
        show(found)
    if target is not None:
        if outputs.is_figure(target):
            outputs.save_figure(found.figure(), target)
        else:
            write("explain", target, found.markdown().encode())
        if not as_json:
            say(f"\nwritten: {target.absolute()}")
    if as_json:
        steps = [
            {"step": step.name, "formula": step.formula, "shape": step.shape}
            | {"parameters": step.parameters, "flops": step.flops, "bytes": step.bytes}
            for step in found.steps
        ]
        emit({"title": found.title, "steps": steps, "notes": found.notes, "written": target})


def show(found: Explanation) -> None:
    """Print the steps at the width of the terminal: what does not fit is left out and named, never cut."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from headscope.look.table import fitting
    from headscope.nn.explanation import COLUMNS

    console = Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=PIPED)
    *rows, sums = found.rows()
    widths = {name: 3 + max(map(len, (name, *(row[i] for row in (*rows, sums))))) for i, name in enumerate(COLUMNS)}
    widths["formula"] = min(widths["formula"], 3 + FORMULA)
    shown = fitting(widths, LEAST, console.width - 1)
    notes = list(found.notes)
    if missing := [name for name in COLUMNS if name not in shown]:
        notes.append(f"Left out, for the width: {', '.join(missing)}.")
    table = Table(title=escape(found.title), caption=escape("\n".join(notes)), caption_justify="left")
    for name in shown:
        justify: Literal["left", "right"] = "right" if name in NUMBERS else "left"
        table.add_column(name, justify=justify, no_wrap=name != "formula", min_width=widths[name] - 3)
    places = [COLUMNS.index(name) for name in shown]
    for row in rows:
        table.add_row(*(escape(row[place]) for place in places))
    table.add_section()
    table.add_row(*(escape(sums[place]) for place in places))
    console.print(table)


def explained(
    batch: int,
    tokens: int,
    input_dim: int,
    embed_dim: int,
    heads: int,
    kv_heads: int | None,
    memory: int | None,
    causal: bool,
) -> Explanation:
    """The steps of a layer with random weights on a random input."""
    import torch

    import headscope as hs

    layer = hs.nn.MultiheadAttention(embed_dim, heads, input_dim=input_dim, num_kv_heads=kv_heads)
    x = torch.randn(batch, tokens, input_dim)
    other = None if memory is None else torch.randn(batch, memory, input_dim)
    return hs.explain(layer, x, other, mask=hs.causal() if causal else None)
