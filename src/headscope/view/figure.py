"""Figures for papers and slides, drawn with matplotlib: one head with its tokens, or every head as a small picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headscope.errors import LookError, MissingExtra
from headscope.look.axis import Axis
from headscope.look.head import Head
from headscope.recording.recording import Recording
from headscope.view.colour import table
from headscope.view.labels import every, shortened, visible
from headscope.view.picture import picture, top
from headscope.view.subject import Subject, head_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

# Inches: a cell with a label, the longest side of a map, a small picture.
CELL, SIDE, SMALL = 0.24, 6.4, 0.52
FINEST = 1024  # cells along one side; larger heads are pooled
SMALL_CELLS = 48
LONGEST = 22  # letters of a label
INK, FAINT, UNSEEN = "#1b1e25", "#747a86", "#ececea"
# Fonts with the letters that matplotlib's own font lacks; the first ones that are installed are used.
FALLBACKS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
)


def figure(x: Recording | Head, layer: int | None = None, head: int | None = None) -> Figure:
    """A figure of one head with its labels, or of every head as a small picture.

    Save it with `figure.savefig("head.pdf")`: PNG, SVG, PDF, and what else matplotlib writes.

    Args:
        x: a recording, or one head.
        layer, head: which head of a recording; without them all heads, with a layer alone all heads of that layer.

    Raises:
        MissingExtra: matplotlib is not installed.
        LookError: a head that does not exist, or a head without its layer.

    Example:
        >>> import io, torch
        >>> head = Head(torch.eye(3), torch.eye(3), queries=Axis.tokens(["the", "cat", "sat"]))
        >>> figure(head).savefig(io.BytesIO(), format="svg")
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra(
            f"figure: drawing needs matplotlib, which is not installed ({error}): pip install 'headscope[plot]'"
        ) from error
    subject = Subject("figure", x, findings=False)
    if layer is None and head is not None:
        raise LookError(f"figure: head {head} of which layer? Give both: hs.figure(recording, layer, head).")
    if isinstance(x, Head):
        if layer is not None:
            raise LookError("figure: given one head and a layer to choose from; give the recording, or the head alone.")
        return of_head(Figure, x, "")
    if layer is not None and head is not None:
        at, row = subject.place(layer, head)
        chosen = subject.layers[at]
        title = f"Layer {subject.recording.numbers[at]}, head {chosen.head_numbers[row]}"
        return of_head(Figure, chosen.head(row), title)
    places = range(len(subject.layers)) if layer is None else [subject.place_of_layer(layer)]
    return of_all(Figure, subject, list(places))


def of_head(make: type[Figure], head: Head, title: str) -> Figure:
    """The heat map of one head with its labels on both sides, and its scale."""
    pooled = picture(head, FINEST, FINEST)
    weights = np.ma.masked_less(pooled.numpy(), 0.0)
    queries, keys = len(head.q), len(head.k)
    alike = head.queries.kind == head.keys.kind
    width, height = min(SIDE, max(CELL * keys, 1.2)), min(SIDE, max(CELL * queries, 1.2))
    if alike:
        one = min(width / keys, height / queries)
        width, height = max(one * keys, 0.6), max(one * queries, 0.6)
    drawn = make(figsize=(width + 2.6, height + 1.6), layout="constrained")
    axes = drawn.add_subplot()
    extent = (-0.5, keys - 0.5, queries - 0.5, -0.5)
    look: dict[str, Any] = {"cmap": colours(), "interpolation": "nearest", "aspect": "equal" if alike else "auto"}
    image = axes.imshow(weights, vmin=0.0, vmax=top(pooled, keys), extent=extent, **look)
    if max(queries, keys) <= 40:
        gaps(axes, queries, keys)
    label_sides(axes, head, width, height)
    bar = drawn.colorbar(image, ax=axes, shrink=min(1.0, 2.2 / height), aspect=16, pad=0.02, anchor=(0.0, 1.0))
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=FAINT)
    bar.ax.set_title("weight", fontsize=8, color=FAINT, loc="left", pad=6)
    if title:
        drawn.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold", color=INK)
    return drawn


def of_all(make: type[Figure], subject: Subject, places: list[int]) -> Figure:
    """Every head as a small picture in one image: layers down, heads along."""
    layers = [subject.layers[at] for at in places]
    most = max(layer.heads for layer in layers)
    gap = 4
    step = SMALL_CELLS + gap
    canvas = np.full((len(layers) * step - gap, most * step - gap, 4), 0, dtype=np.uint8)
    for down, layer in enumerate(layers):
        for along in range(layer.heads):
            canvas[down * step :, along * step :][:SMALL_CELLS, :SMALL_CELLS] = small(layer.head(along))
    drawn = make(figsize=(SMALL * most + 0.9, SMALL * len(layers) + 0.9), layout="constrained")
    axes = drawn.add_subplot()
    axes.imshow(canvas, interpolation="nearest")
    middle = (SMALL_CELLS - 1) / 2
    columns, rows = head_names(layers), [str(subject.recording.numbers[at]) for at in places]
    axes.set_xticks([middle + i * step for i in range(most)], columns)
    axes.set_yticks([middle + i * step for i in range(len(layers))], rows)
    axes.tick_params(length=0, labelsize=8, labelcolor=FAINT, top=False, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("layer", fontsize=9, color=INK)
    axes.set_title("head", fontsize=9, color=INK, pad=6)
    axes.set_xlabel("each head from 0 to its own largest weight", fontsize=8, color=FAINT, loc="left", labelpad=6)
    return drawn


def small(head: Head) -> np.ndarray:
    """One head as SMALL_CELLS x SMALL_CELLS colours."""
    pooled = picture(head, SMALL_CELLS, SMALL_CELLS)
    weights, largest = pooled.numpy(), top(pooled, len(head.k))
    rows, columns = (np.arange(SMALL_CELLS) * count // SMALL_CELLS for count in weights.shape)
    weights = weights[rows][:, columns]
    seen = np.round(255 * np.nan_to_num(weights).clip(0.0, largest) / largest).astype(int)
    coloured = table("light")[seen]
    coloured = np.where((weights < 0)[..., None], np.array([int(UNSEEN[i : i + 2], 16) for i in (1, 3, 5)]), coloured)
    return np.concatenate([coloured, np.full((*weights.shape, 1), 255)], axis=-1).astype(np.uint8)


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
    family = ["DejaVu Sans", *installed_fallbacks()]
    style: dict[str, Any] = {"fontsize": 8, "parse_math": False, "family": family}
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


def ticks(axis: Axis, fit: int) -> tuple[list[int], list[str]]:
    """The positions that are labelled, and their labels; with numbers where some are left out."""
    step = every(axis.length, fit)
    places = list(range(0, axis.length, step))
    labels = [shortened(visible(axis.labels[i]), LONGEST) for i in places]
    if step > 1 and axis.kind == "tokens":
        labels = [f"{label}  {i}" for i, label in zip(places, labels, strict=True)]
    return places, labels


def installed_fallbacks() -> list[str]:
    """The fonts of FALLBACKS that are there."""
    from matplotlib.font_manager import fontManager

    return sorted(set(FALLBACKS) & set(fontManager.get_font_names()), key=FALLBACKS.index)
