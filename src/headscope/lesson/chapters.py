"""A worked example as chapters: what happens, its formula, its shape, and a table of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from headscope.characters import counted
from headscope.lesson.cells import FEW, MOST, Cell, Share, around, at, named, near, sized, vector
from headscope.lesson.worked_example import WorkedExample
from headscope.nn.explain_parts import affine, score_formula

LETTERS = {"q": "query", "k": "key", "v": "value"}


@dataclass(frozen=True)
class Chapter:
    """One step.

    Attributes:
        title: what is made.
        formula: how.
        shape: of what is made.
        text: what that means, in sentences.
        columns, rows: the numbers; the first column names a token or a head.
        marked: the rows that the text speaks of.
        after: what the numbers show.
    """

    title: str
    formula: str
    shape: str
    text: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: frozenset[int] = frozenset()
    after: str = ""


def chapters(example: WorkedExample) -> list[Chapter]:
    """The six steps from the tokens to the output of the attention layer."""
    return [
        tokens(example),
        projections(example),
        scores(example),
        weights(example),
        values(example),
        merging(example),
    ]


def tokens(example: WorkedExample) -> Chapter:
    """What enters the layer."""
    axis, x = example.lens.queries, example.x
    text = f"The model cuts the text into {counted(axis.length, 'token')}. "
    rows = around(example)
    cells: list[tuple[Cell, ...]] = [
        (
            named(axis.labels, row),
            "" if axis.ids is None else str(axis.ids[row]),
            *([] if x is None else [vector(x[row])]),
        )
        for row in rows
    ]
    columns = ("token", "id") + (() if x is None else ("x",))
    if x is None:
        text += "What enters the attention layer could not be identified in this model."
    else:
        text += f"When they reach the attention of layer {example.layer}, each is a vector of {x.shape[1]} numbers, x."
    shape = (axis.length,) if x is None else tuple(x.shape)
    return Chapter("Tokens", "text → ids → x", sized(shape), text, columns, tuple(cells), at(rows, example.query))


def projections(example: WorkedExample) -> Chapter:
    """q, k and v."""
    layer, lens = example.recorded, example.lens
    heads, n, d = layer.q.shape[1:]
    lines = [
        "Learned matrices make three vectors of every token: a query (what it looks for), a key (what it can be found "
        f"by) and a value (what it gives). All {heads} heads at once; head {example.head} takes its own {d} numbers."
    ]
    formulas = []
    for letter, name in LETTERS.items():
        source = example.source.get(letter)
        if source is None:
            lines.append(f"Where the {name} comes from could not be identified in this model.")
            continue
        if not source.packed:
            operand = "x" if letter == "q" or example.lens.queries == example.lens.keys else "memory"
            formulas.append(f"{letter} = {affine(operand, letter, source.call.module)}")
        if not source.exact:
            lines.append(
                f"Between that matrix and attention the model changes the {name}: rotary positions, a norm or a factor."
            )
    packed = [letter for letter, source in example.source.items() if source.packed]
    if packed:
        formulas.append(f"{', '.join(packed)} = {affine('x', ''.join(packed), example.source[packed[0]].call.module)}")
    groups = layer.k.shape[1]
    if groups != heads:
        lines.append(f"The {heads} heads share {groups} keys and values: grouped-query attention.")
    assert lens.v is not None
    rows = near(example, most=FEW)
    if len(rows) < len(lens.k):
        lines.append(f"Keys and values are printed for the {FEW} tokens that get the largest weights.")
    cells: list[tuple[Cell, ...]] = [
        (f"q {named(lens.queries.labels, example.query)}", vector(lens.q[example.query])),
        *((f"k {named(lens.keys.labels, row)}", vector(lens.k[row])) for row in rows),
        *((f"v {named(lens.keys.labels, row)}", vector(lens.v[row])) for row in rows),
    ]
    return Chapter(
        "Queries, keys, values",
        "; ".join(formulas),
        f"{sized((n, heads * d))} → {sized((heads, n, d))}",
        " ".join(lines),
        ("of", "numbers"),
        tuple(cells),
        frozenset({0}),
    )


def scores(example: WorkedExample) -> Chapter:
    """q · k, scaled."""
    lens, who = example.lens, named(example.lens.queries.labels, example.query)
    d, rows = lens.q.shape[1], near(example)
    best = int(example.weights.argmax())
    usual = math.isclose(lens.scale, d**-0.5)
    scaled = f"divided by √{d} = {math.sqrt(d):.3g}" if usual else f"times {lens.scale:g}"
    seen = torch.isfinite(example.scores)
    parts = []
    if lens.bias is not None:
        parts.append("bias")
    if not seen.all():
        parts.append("mask")
    added = "" if lens.bias is None else " The model adds a bias, which knows how far apart the two are or hides keys."
    capped = "" if lens.softcap is None else f" A softcap keeps scores between −{lens.softcap:g} and {lens.softcap:g}."
    hidden = int((~seen).sum())
    hides = "" if not hidden else f" {hidden} of {len(seen)} keys are hidden from this query: their score is −∞."
    text = (
        f'How well does the query of "{who}" fit to each key? A dot product, {scaled}, so that the size of a head does '
        f"not decide how sharp its attention is.{added}{capped}{hides}"
    )
    cells: list[tuple[Cell, ...]] = [
        (named(lens.keys.labels, row), example.products[row].item(), example.scores[row].item()) for row in rows
    ]
    after = (
        f'"{who}" · "{named(lens.keys.labels, best)}" = {example.products[best]:.3f}, '
        f"and the score is {example.scores[best]:.3f}."
    )
    count = (len(example.recorded.head_numbers), len(lens.q), len(lens.k))
    formula = score_formula(d, lens.scale, lens.softcap, parts)
    return Chapter(
        "Scores", formula, sized(count), text, ("key", "q · k", "score"), tuple(cells), at(rows, best), after
    )


def weights(example: WorkedExample) -> Chapter:
    """The softmax."""
    lens, rows = example.lens, near(example)
    best = int(example.weights.argmax())
    total = example.exponentials.double().sum().item() + example.sink
    sink = "" if not example.sink else f" A learned sink adds {example.sink:.4g} to the sum and takes its share away."
    text = (
        "The softmax makes them positive, with the sum 1: each is exponentiated and divided by the sum of all. "
        f"The largest score, {example.largest:.3f}, is subtracted first; that changes no weight.{sink}"
    )
    cells: list[tuple[Cell, ...]] = [
        (
            named(lens.keys.labels, row),
            example.scores[row].item(),
            example.exponentials[row].item(),
            Share(example.weights[row].item()),
        )
        for row in rows
    ]
    rest = example.weights.double().sum().item() - sum(example.weights[row].item() for row in rows)
    more = "" if len(rows) == len(lens.k) else f" The {len(lens.k) - len(rows)} other keys have {rest:.3f} together."
    after = (
        f"{example.exponentials[best]:.3f} / {total:.3f} = {example.weights[best]:.3f}: that share of the attention of "
        f'"{named(lens.queries.labels, example.query)}" goes to "{named(lens.keys.labels, best)}".{more}'
    )
    count = (len(example.recorded.head_numbers), len(lens.q), len(lens.k))
    return Chapter(
        "Weights",
        "softmax(scores)",
        sized(count),
        text,
        ("key", "score", "exp", "weight"),
        tuple(cells),
        at(rows, best),
        after,
    )


def values(example: WorkedExample) -> Chapter:
    """The mean of the values."""
    lens, rows = example.lens, near(example)
    assert lens.v is not None
    who = named(lens.queries.labels, example.query)
    cells: list[tuple[Cell, ...]] = [
        (named(lens.keys.labels, row), Share(example.weights[row].item()), vector(example.weights[row] * lens.v[row]))
        for row in rows
    ]
    cells.append(("sum", "", vector(example.values)))
    left = "" if len(rows) == len(lens.k) else f" (the other {len(lens.k) - len(rows)} keys count in the sum)"
    return Chapter(
        "Values",
        "weights · v",
        sized((len(example.recorded.head_numbers), *lens.values().shape)),
        f'Each value is multiplied by its weight and added up{left}: that is what "{who}" takes from the others here.',
        ("key", "weight", "weight · v"),
        tuple(cells),
        frozenset({len(cells) - 1}),
    )


def merging(example: WorkedExample) -> Chapter:
    """All heads side by side, through W_O."""
    layer, who = example.recorded, named(example.lens.queries.labels, example.query)
    cells: list[tuple[Cell, ...]] = []
    for number in layer.head_numbers[:MOST]:
        one = example.recording[example.layer, number]
        row = one.row(example.query)
        best = int(row.argmax())
        cells.append(
            (f"{number} {named(one.keys.labels, best)}", Share(row[best].item()), vector(one.values()[example.query]))
        )
    left = len(layer.head_numbers) - len(cells)
    text = (
        f"All {len(layer.head_numbers)} heads do this at the same time, each with matrices of its own, and in each "
        f'"{who}" looks elsewhere. Their values stand side by side'
        + (f" ({left} more heads are not printed here)" if left else "")
        + (", and one more matrix, W_O, mixes them." if example.output is not None else ".")
    )
    shape, formula, after = sized(tuple(example.merged.shape)), "heads side by side", ""
    if example.output is not None:
        output = example.output
        cells.append(("output", "", vector(output.y[example.query])))
        shape += f" → {sized(tuple(output.y.shape))}"
        formula += f"; {affine('merged', 'out', output.module)}"
        far = "in no bit" if not example.difference else f"by at most {example.difference:.1g}"
        after = f"Compared with the model itself: what it gives to W_O differs from these merged heads {far}."
    return Chapter(
        "Heads merged",
        formula,
        shape,
        text,
        ("head", "looks", "values"),
        tuple(cells),
        at(list(layer.head_numbers), example.head),
        after,
    )
