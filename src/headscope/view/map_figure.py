"""One head as a heat map with its labels, drawn with matplotlib; several of them in a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headscope.look.axis import Axis
from headscope.look.head import Head
from headscope.view.colour import table
from headscope.view.labels import every, shortened, visible
from headscope.view.paper import DOTS, FAINT, INK, MEAN_LETTER, family, in_lines, paper
from headscope.view.picture import picture, top

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

# Inches: a cell with a label, the longest side of a map, what stands around it.
CELL, SIDE, AROUND = 0.24, 6.4, 2.6
BAR = 0.75  # inches: the scale and its numbers
FINEST = 1024  # cells along one side; larger heads are pooled
VECTORS = 64  # cells along one side that are drawn one by one
LONGEST = 22  # letters of a label
UNSEEN = "#ececea"


def of_head(head: Head, title: str, width: float | None = None) -> Figure:
    """The heat map of one head with its labels on both sides, and its scale."""
    pooled = picture(head, FINEST, FINEST)
    weights = np.ma.masked_less(pooled.numpy(), 0.0)
    queries, keys = len(head.q), len(head.k)
    alike = head.queries.kind == head.keys.kind
    wide, high = min(SIDE, max(CELL * keys, 1.2)), min(SIDE, max(CELL * queries, 1.2))
    if alike:
        one = min(wide / keys, high / queries)
        wide, high = max(one * keys, 0.6), max(one * queries, 0.6)
    if width is not None:
        shrink = min(1.0, max(0.6, width - BAR - 0.5 - letters(head.queries)) / wide)
        wide, high = wide * shrink, high * shrink
    above = 0.8 * letters(head.keys) + 1.3
    drawn = paper()(figsize=(width or wide + AROUND, high + above), dpi=DOTS, layout="constrained")
    axes = drawn.add_subplot()
    image = cells(axes, weights, queries, keys, vmin=0.0, vmax=top(pooled, keys))
    axes.set_aspect("equal" if alike else "auto")
    if max(queries, keys) <= 40:
        gaps(axes, queries, keys)
    label_sides(axes, head, wide, high)
    long = min(1.0, 2.2 / high)
    bar = drawn.colorbar(image, cax=axes.inset_axes((1.0 + 0.08 / wide, 1.0 - long, 0.13 / wide, long)))
    bar.outline.set_visible(False)  # type: ignore[operator, unused-ignore]
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=FAINT)
    bar.set_label("weight", fontsize=8, color=FAINT)
    if title:
        style: dict[str, Any] = {"fontsize": 10, "fontweight": "bold", "color": INK, "family": family()}
        title, wrap = in_lines(title, drawn.get_figwidth(), 10.0)
        drawn.suptitle(title, x=0.012, ha="left", parse_math=False, wrap=wrap, **style)
    return drawn


def cells(axes: Axes, weights: np.ma.MaskedArray[Any, Any], queries: int, keys: int, **scale: Any) -> Any:
    """The cells: vectors where they are few enough to be told apart, so that print stays sharp; else an image."""
    if max(weights.shape) <= VECTORS:
        edges = [
            np.linspace(-0.5, count - 0.5, size + 1)
            for count, size in zip((keys, queries), weights.shape[::-1], strict=True)
        ]
        axes.set_facecolor(UNSEEN)
        drawn = axes.pcolormesh(*edges, weights, cmap=colours(), edgecolors="none", linewidth=0, **scale)
        axes.set(xlim=(-0.5, keys - 0.5), ylim=(queries - 0.5, -0.5))
        return drawn
    extent = (-0.5, keys - 0.5, queries - 0.5, -0.5)
    return axes.imshow(weights, cmap=colours(), interpolation="nearest", extent=extent, aspect="auto", **scale)


def of_strip(heads: list[tuple[str, Head]], width: float | None = None) -> Figure:
    """Several heads beside each other on one scale, each with its name; the first has the labels of the queries."""
    pooled = [picture(head, FINEST, FINEST) for _, head in heads]
    largest = max(top(weights, len(head.k)) for weights, (_, head) in zip(pooled, heads, strict=True))
    wide = width or min(14.0, 1.4 + 2.4 * len(heads))
    side = (wide - 1.4) / len(heads)
    drawn = paper()(figsize=(wide, side + 0.9 + 0.8 * letters(heads[0][1].keys)), dpi=DOTS, layout="constrained")
    every_axes = drawn.subplots(1, len(heads), squeeze=False)[0]
    for place, (axes, weights, (name, head)) in enumerate(zip(every_axes, pooled, heads, strict=True)):
        masked = np.ma.masked_less(weights.numpy(), 0.0)
        image = cells(axes, masked, len(head.q), len(head.k), vmin=0.0, vmax=largest)
        axes.set_aspect("equal" if head.queries.kind == head.keys.kind else "auto")
        label_sides(axes, head, side, side)
        if place:
            axes.set(yticks=[], ylabel="")
        axes.set_xlabel("")
        axes.set_title(name, fontsize=8, color=INK, fontweight="bold", loc="left", pad=4)
    bar = drawn.colorbar(image, ax=list(every_axes), shrink=0.6, aspect=16, pad=0.01)
    bar.outline.set_visible(False)  # type: ignore[operator, unused-ignore]
    bar.ax.tick_params(length=0, labelsize=7, labelcolor=FAINT)
    bar.set_label("weight", fontsize=7, color=FAINT)
    return drawn


def colours() -> ListedColormap:
    """The light colour map; grey where nothing may be seen."""
    from matplotlib.colors import ListedColormap

    made = ListedColormap(table("light") / 255.0, name="headscope")
    return made.with_extremes(bad=UNSEEN)  # type: ignore[return-value, unused-ignore]


def gaps(axes: Axes, rows: int, columns: int) -> None:
    """Thin white lines between the cells of a small head."""
    axes.hlines(np.arange(rows + 1) - 0.5, -0.5, columns - 0.5, colors="white", linewidths=0.8)
    axes.vlines(np.arange(columns + 1) - 0.5, -0.5, rows - 0.5, colors="white", linewidths=0.8)


def label_sides(axes: Axes, head: Head, width: float, height: float) -> None:
    """The labels of the queries at the left and of the keys at the top, as many as there is room for."""
    style: dict[str, Any] = {"fontsize": 8, "parse_math": False, "family": family()}
    rows, row_labels = ticks(head.queries, int(height / 0.16))
    columns, column_labels = ticks(head.keys, int(width / 0.19))
    axes.set_yticks(rows, row_labels, **style)
    axes.set_xticks(columns, column_labels, rotation=52, ha="left", rotation_mode="anchor", **style)
    axes.tick_params(length=0, pad=4, labelcolor=INK, bottom=False, top=False, labeltop=True, labelbottom=False)
    sides = ((head.queries, rows, axes.get_yticklabels()), (head.keys, columns, axes.get_xticklabels()))
    for axis, places, texts in sides:
        for place, text in zip(places, texts, strict=True):
            if axis.special[place]:
                text.set_color(FAINT)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("query", fontsize=8, color=FAINT)
    axes.set_xlabel("key", fontsize=8, color=FAINT)
    axes.xaxis.set_label_position("top")


def letters(axis: Axis) -> float:
    """About how many inches the longest label takes."""
    return max((len(shortened(visible(label), LONGEST)) for label in axis.labels), default=0) * MEAN_LETTER * 8 / 72


def ticks(axis: Axis, fit: int) -> tuple[list[int], list[str]]:
    """The positions that are labelled, and their labels; with numbers where some are left out."""
    step = every(axis.length, fit)
    places = list(range(0, axis.length, step))
    labels = [shortened(visible(axis.labels[i]), LONGEST) for i in places]
    if step > 1 and axis.kind == "tokens":
        labels = [f"{label}  {i}" for i, label in zip(places, labels, strict=True)]
    return places, labels
