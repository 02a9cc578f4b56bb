"""A head as arcs over the line of text, or as lines between two texts, drawn with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headscope.errors import LookError
from headscope.look.axis import Axis
from headscope.look.head import Head
from headscope.look.sequences import same_positions
from headscope.view.colour import table
from headscope.view.labels import shortened, visible
from headscope.view.paper import DOTS, FAINT, INK, family, filled, in_lines, paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Tokens in a line; the weights from which any token, and the chosen one, has an arc.
MOST, LEAST, OWN = 40, 0.15, 0.05
ACCENT = "#b3380f"
# Points: letters, the gap between words, the highest arc, the room between two lines, the height of a line.
SIZE, GAP, RISE, BETWEEN, LINE = 10.0, 10.0, 62.0, 70.0, 14.0


class Word(NamedTuple):
    """A token where it stands: its position, the middle of it and the height of its line, in points."""

    position: int
    text: str
    x: float
    y: float


def of_arcs(head: Head, title: str, query: int | None, width: float | None) -> Figure:
    """The arcs of one head; those of a chosen query stand out.

    Raises:
        LookError: more tokens than a line has room for.
    """
    same = same_positions(head.queries, head.keys)
    sides = [content(head.keys)] if same else [content(head.queries), content(head.keys)]
    if max(map(len, sides)) > MOST:
        raise LookError(
            f"figure: arcs over {max(map(len, sides))} tokens cannot be told apart, {MOST} can; leave kind out."
        )
    shift = len(head.k) - len(head.q) if same else 0
    lines = [
        placed(axis, side, y)
        for axis, side, y in zip(
            (head.queries, head.keys)[2 - len(sides) :], sides, (0.0, -BETWEEN - LINE), strict=False
        )
    ]
    right = max(line[-1].x for line in lines) + 30.0
    high, low = (RISE + 22.0, -RISE - 8.0) if same else (LINE + 8.0, -BETWEEN - 2 * LINE - 6.0)
    scale = 1.0 if width is None else 72.0 * width / right
    figure = paper()(figsize=(scale * right / 72.0, scale * (high - low) / 72.0 + 0.6), dpi=DOTS, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(0.0, right), ylim=(low, high), aspect="equal")
    axes.axis("off")
    weights = head.weights().float().cpu().numpy()
    keys = {word.position: word for word in lines[-1]}
    for word in lines[0]:
        i = word.position - shift
        for j in (j for j in keys if i >= 0 and weights[i, j] >= (OWN if i == query else LEAST)):
            link(axes, word, keys[j], float(weights[i, j]), own=i == query, scale=scale)
    for line in lines:
        for word in line:
            chosen = query is not None and line is lines[0] and word.position - shift == query
            style: dict[str, Any] = {"weight": "bold", "color": ACCENT} if chosen else {"color": INK}
            axes.text(
                word.x,
                word.y,
                word.text,
                fontsize=scale * SIZE,
                ha="center",
                va="center",
                parse_math=False,
                family=family(),
                **style,
            )
    size = min(11.0, 11.0 * scale + 2)
    title, wrap = in_lines(title, figure.get_figwidth(), size)
    figure.suptitle(
        title,
        x=0.012,
        ha="left",
        fontsize=size,
        fontweight="bold",
        color=INK,
        parse_math=False,
        wrap=wrap,
    )
    if same:
        axes.text(
            0.0,
            low + 2.0,
            filled(f"above: looks back, below: ahead; weights from {LEAST}", figure.get_figwidth() - 0.4, scale * 6.5),
            fontsize=scale * 6.5,
            color=FAINT,
            va="bottom",
        )
    return figure


def content(axis: Axis) -> list[int]:
    """The positions that stand in the line: all that are not special, or all."""
    found = [i for i in range(axis.length) if not axis.special[i]]
    return found or list(range(axis.length))


def placed(axis: Axis, positions: list[int], y: float) -> list[Word]:
    """The words of a line beside each other, at the width that they have in print."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    words, x = [], 4.0
    font = FontProperties(family="DejaVu Sans")
    for position in positions:
        text = shortened(visible(axis.labels[position]).lstrip("␣") or "␣", 18)
        wide = max(4.0, float(TextPath((0, 0), text.replace("$", "S"), size=SIZE, prop=font).get_extents().width))
        words.append(Word(position, text, x + wide / 2, y))
        x += wide + GAP
    return words


def link(axes: Axes, start: Word, end: Word, weight: float, *, own: bool, scale: float) -> None:
    """One arc, or one line between two texts; its gid says which weight it is."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if start.y == end.y:
        back = end.position <= start.position
        side = 1.0 if back else -1.0
        spread = 4.0 if start == end else 0.0
        x1, x2, y = start.x - spread, end.x + spread, start.y + side * LINE / 2
        control = y + side * (4 / 3) * min(RISE, 9.0 + 0.34 * abs(x2 - x1))
        points = [(x1, y), (x1, control), (x2, control), (x2, y)]
    else:
        y1, y2 = start.y - LINE / 2, end.y + LINE / 2
        bend = 0.45 * (y2 - y1)
        points = [(start.x, y1), (start.x, y1 + bend), (end.x, y2 - bend), (end.x, y2)]
    shade = np.asarray(table("light")[round(255 * (0.42 + 0.4 * weight))]) / 255.0
    colour: Any = ACCENT if own else tuple(shade)
    path = Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    line = PathPatch(
        path,
        fill=False,
        edgecolor=colour,
        linewidth=scale * (0.6 + 4 * weight),
        alpha=0.95 if own else 0.65,
        zorder=3 if own else 2,
        capstyle="round",
    )
    line.set_gid(f"query {start.position} key {end.position} weight {weight:.5f}")
    axes.add_patch(line)
