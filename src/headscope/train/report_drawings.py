"""The drawings of a report: what a written text was aligned with in its source, and heads over the steps."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from headscope.characters import visible
from headscope.look.axis import Axis
from headscope.look.head import Head
from headscope.view.compare import Pair, moved

# Sizes in pixels: a token, its letters, the space between the two texts; and the weight from which a line is drawn.
STEP, LETTER, GAP, FAINTEST = 34, 11, 110, 0.08
LONGEST = 35  # tokens of a text in a drawing, as a page has room for; of longer sources those that are read most
CURVES = (320, 120)  # as wide as the style sheet lets them be, so that letters have their size
LISTED = 4  # heads that are named


def alignments_html(pairs: Sequence[Pair]) -> str:
    """For each pair of recordings the cross-attention head that moved most: from each written token to the source."""
    drawings = [drawing for pair in pairs if (drawing := alignment(pair))]
    if not drawings:
        return ""
    return (
        '<div class="wide"><h2>What was read for each written token <span class="hint">the head of cross-attention '
        f"that moved most; below the source, above what is written, before → after</span></h2>{''.join(drawings)}</div>"
    )


def alignment(pair: Pair) -> str:
    """The drawing of one text; empty where there is no cross-attention."""
    found = [
        (moved(before.head(head, 0), after.head(head, 0)), number, before.head_numbers[head], before.head(head, 0),
         after.head(head, 0))
        for number, before, after in zip(pair.a.numbers, pair.a.layers, pair.b.layers, strict=True)
        if before.kind == "cross"
        for head in range(before.heads)
    ]  # fmt: skip
    if not found:
        return ""
    _, layer, number, before, after = max(found, key=lambda one: one[0])
    read = most_read(before, after)
    sides = "".join(arcs(head, read) for head in (before, after))
    parts = [
        f"the first {LONGEST} of {len(before.q)} written tokens" if len(before.q) > LONGEST else "",
        f"the {LONGEST} of {len(before.k)} source tokens that are read most" if len(before.k) > LONGEST else "",
    ]
    shortened = "".join(f"; {part}" for part in parts if part)
    return (
        f"<figure><figcaption>head {layer}.{number}: {html.escape(visible(pair.name))}{shortened}</figcaption>"
        f"{sides}</figure>"
    )


def most_read(before: Head, after: Head) -> list[int]:
    """The tokens of a source that a drawing has room for: those read most on the two sides, in their order."""
    total = torch.stack([head.weights()[:LONGEST].float().sum(0) for head in (before, after)]).sum(0)
    return sorted(total.topk(min(LONGEST, len(total))).indices.tolist())


def arcs(head: Head, read: Sequence[int]) -> str:
    """Lines from each written token to what was read for it, among the tokens of the source that `read` counts."""
    labels = shown(head.keys)
    above, below = written(head.queries)[:LONGEST], [labels[i] for i in read]
    width = STEP * max(len(above), len(below)) + STEP
    weights = head.weights()[:LONGEST, read].float().tolist()
    lines = "".join(
        f'<line x1="{place(i)}" y1="{LETTER + 6}" x2="{place(j)}" y2="{GAP}" stroke-opacity="{weight:.2f}"/>'
        for i, row in enumerate(weights)
        for j, weight in enumerate(row)
        if weight >= FAINTEST
    )
    texts = "".join(
        f'<text x="{place(i)}" y="{y}" text-anchor="middle">{html.escape(label)}</text>'
        for y, labels in ((LETTER, above), (GAP + LETTER + 3, below))
        for i, label in enumerate(labels)
    )
    label = f"Cross-attention from {len(above)} written tokens to {len(below)} of the source"
    return (
        f'<svg class="arcs" viewBox="0 0 {width} {GAP + 22}" width="{width}" role="img" aria-label="{label}">{lines}'
        f"{texts}</svg>"
    )


def place(i: int) -> int:
    """Where the token of a number stands."""
    return STEP // 2 + STEP * i


def shown(axis: Axis) -> list[str]:
    """The labels of an axis, short ones whole."""
    return [label if len(label) <= 5 else f"{label[:4]}…" for label in (visible(x) for x in axis.labels)]


def written(queries: Axis) -> list[str]:
    """What a decoder writes at each position: the token that it reads at the next one."""
    return [*shown(queries)[1:], "end"]


def curves_html(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """How some measures of every head went over the steps, one line for each head; the largest are named."""
    drawings = [drawing for name in names if (drawing := curves(rows, name))]
    if not drawings:
        return ""
    return (
        '<div class="wide"><h2>Heads over the training <span class="hint">one line for each head, on one text of the '
        f"evaluation</span></h2>{''.join(drawings)}</div>"
    )


def curves(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """The lines of one measure."""
    lines: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for row in rows:
        value = row.get(name)
        if isinstance(value, float) and value == value:
            lines.setdefault((int(row["layer"]), int(row["head"])), []).append((int(row["step"]), value))
    last = max((points[-1][0] for points in lines.values()), default=0)
    if not last:
        return ""
    width, height = CURVES[0] - 40, CURVES[1] - 26

    def point(step: int, value: float) -> str:
        return f"{34 + width * step / last:.1f},{6 + height * (1 - value):.1f}"

    drawn = "".join(f'<polyline points="{" ".join(point(*x) for x in points)}"/>' for points in lines.values())
    first = sorted(lines, key=lambda head: -lines[head][-1][1])[:LISTED]
    best = ", ".join(f"{layer}.{head} {lines[layer, head][-1][1]:.2f}" for layer, head in first)
    y = 6 + height
    return (
        f'<figure><svg class="curve" viewBox="0 0 {CURVES[0]} {CURVES[1]}" role="img" '
        f'aria-label="{name} of every head over the steps"><line x1="34" y1="{y}" x2="{34 + width}" y2="{y}"/>{drawn}'
        f'<text x="0" y="14">1</text><text x="0" y="{y}">0</text><text x="{34 + width}" y="{y + 14}" '
        f'text-anchor="end">step {last}</text></svg><figcaption>{name}: at the end {best}</figcaption></figure>'
    )
