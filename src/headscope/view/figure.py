"""Figures for papers and slides, drawn with matplotlib: a head as a map or as arcs, several heads, or all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from headscope.errors import LookError, MissingExtra
from headscope.look.head import Head
from headscope.recording.recording import Recording
from headscope.view.colour import table
from headscope.view.picture import picture, top
from headscope.view.subject import Subject, head_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL = 0.52  # inches of a small picture
SMALL_CELLS = 48
UNSEEN = "#ececea"


def figure(
    x: Recording | Head,
    layer: int | None = None,
    head: int | None = None,
    *,
    heads: Sequence[tuple[int, int]] | None = None,
    query: int | None = None,
    window: tuple[slice, slice] | None = None,
    kind: str = "map",
    width: float | str | None = None,
) -> Figure:
    """A figure of one head with its labels, of several heads in a row, or of every head as a small picture.

    Save it with `figure.savefig("head.pdf")`: PNG (300 dots per inch), SVG (text stays text), PDF (fonts embedded as
    TrueType), and what else matplotlib writes. The sentence of the head stands above, the text and the model below.

    Args:
        x: a recording, or one head.
        layer, head: which head of a recording; without them all heads, with a layer alone all heads of that layer.
        heads: several heads by layer and head, beside each other on one scale.
        query: one row of the head as a grid over the picture that the keys are patches of.
        window: which queries and which keys of one head are drawn, of a head of any length.
        kind: "map", or for one head of a short text "arcs" over the text.
        width: inches, or "column" (3.3) or "page" (6.9) of a paper; as the content asks for unless given.

    Raises:
        MissingExtra: matplotlib is not installed.
        LookError: a head, query or window that does not exist, or a head without its layer; arcs of many tokens or of
            many heads; a row of keys that are no patches; an unknown kind or width.

    Example:
        >>> import io, torch
        >>> from headscope import Axis
        >>> head = Head(torch.eye(3), torch.eye(3), queries=Axis.tokens(["the", "cat", "sat"]))
        >>> figure(head).savefig(io.BytesIO(), format="svg")
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            f"figure: drawing needs matplotlib, which is not installed ({error}): pip install 'headscope[plot]'"
        ) from error
    from headscope.view.map_figure import of_strip
    from headscope.view.paper import caption, inches

    wide = inches(width)
    if kind not in ("map", "arcs"):
        raise LookError(f"figure: kind={kind!r}; give 'map' or 'arcs'.")
    if window is not None:
        x = windowed(x, layer, head, window)
        layer = head = None
    subject = Subject("figure", x, findings=layer is not None or isinstance(x, Head))
    if layer is None and head is not None:
        raise LookError(f"figure: head {head} of which layer? Give both: hs.figure(recording, layer, head).")
    if isinstance(x, Head) and (layer is not None or heads is not None):
        raise LookError("figure: given one head and a layer to choose from; give the recording, or the head alone.")
    if isinstance(x, Head) or (layer is not None and head is not None):
        at, row = (0, 0) if layer is None or head is None else subject.place(layer, head)
        return of_one(subject, at, row, kind, wide, query)
    if query is not None:
        raise LookError("figure: a row is of one head; give its layer and head: hs.figure(x, 3, 1, query=5).")
    if kind == "arcs":
        raise LookError("figure: arcs are of one head; give its layer and head: hs.figure(x, 3, 1, kind='arcs').")
    if heads is not None:
        chosen = [subject.place(*pair) for pair in heads]
        if not chosen:
            raise LookError("figure: heads is empty; give pairs of layer and head, as in heads=[(3, 1), (5, 11)].")
        strip = [(f"{n}.{h}", subject.layers[at].head(row)) for (n, h), (at, row) in zip(heads, chosen, strict=True)]
        drawn = of_strip(strip, wide)
        caption(drawn, strip[0][1].keys, subject.recording.model)
        return drawn
    places = range(len(subject.layers)) if layer is None else [subject.place_of_layer(layer)]
    return of_all(subject, list(places), wide)


def windowed(x: Recording | Head, layer: int | None, head: int | None, window: tuple[slice, slice]) -> Head:
    """The weights of some queries and keys of one head, as a head of their own.

    Raises:
        LookError: no head was named, or the window has no queries or no keys.
    """
    if not isinstance(x, Head):
        if layer is None or head is None:
            raise LookError("figure: a window is of one head; give its layer and head: hs.figure(x, 3, 1, window=...).")
        x = x[layer, head]
    queries, keys = (range(n)[part] for n, part in zip((len(x.q), len(x.k)), window, strict=True))
    if not queries or not keys:
        raise LookError(
            f"figure: window={window} has {len(queries)} queries and {len(keys)} keys of {len(x.q)} x {len(x.k)}; give "
            "two slices, as in window=(slice(900, 964), slice(0, 64))."
        )
    weights = x.weights(window[0], window[1])
    return Head.from_weights(weights, queries=x.queries.select(queries), keys=x.keys.select(keys), sinks=True)


def of_one(subject: Subject, at: int, row: int, kind: str, width: float | None, query: int | None = None) -> Figure:
    """One head as a map or as arcs, or one row of it over a picture, with its sentence, its text and the model."""
    from headscope.view.arc_figure import of_arcs
    from headscope.view.headline import headlines
    from headscope.view.map_figure import of_head
    from headscope.view.paper import caption, said_of
    from headscope.view.patch_figure import of_row

    one, title = subject.layers[at].head(row), said_of(subject, at, row)
    if query is not None:
        drawn = of_row(one, query, title, width)
    elif kind == "arcs":
        said = headlines(subject)[subject.recording.numbers[at], subject.layers[at].head_numbers[row]]
        drawn = of_arcs(one, title, said.query, width)
    else:
        drawn = of_head(one, title, width)
    caption(drawn, one.keys, subject.recording.model)
    return drawn


def of_all(subject: Subject, places: list[int], width: float | None = None) -> Figure:
    """Every head as a small picture in one image: layers down, heads along."""
    from headscope.view.paper import DOTS, FAINT, INK, caption, filled, paper

    layers = [subject.layers[at] for at in places]
    most = max(layer.heads for layer in layers)
    gap = 4
    step = SMALL_CELLS + gap
    canvas = np.full((len(layers) * step - gap, most * step - gap, 4), 0, dtype=np.uint8)
    for down, layer in enumerate(layers):
        for along in range(layer.heads):
            canvas[down * step :, along * step :][:SMALL_CELLS, :SMALL_CELLS] = small(layer.head(along))
    cell = SMALL if width is None else max(0.08, (width - 0.9) / most)
    wide = cell * most + 0.9 if width is not None else max(2.2, cell * most + 0.9)
    said = filled("each head from 0 to its own largest weight", wide - 0.9, 8.0)
    high = cell * len(layers) + 1.15 + 0.18 * said.count("\n")
    drawn = paper()(figsize=(wide, high), dpi=DOTS, layout="constrained")
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
    axes.set_xlabel(said, fontsize=8, color=FAINT, loc="left", labelpad=6)
    caption(drawn, layers[0].keys[0], subject.recording.model)
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
