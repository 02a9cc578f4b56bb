"""Two recordings of the same input side by side: one HTML file, in which every head can be looked at in both."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from headscope.errors import LookError
from headscope.files.replace_file import write
from headscope.look.head import Head
from headscope.recording.recording import Layer, Recording
from headscope.view.bundle import asset, bundle
from headscope.view.labels import model_name, sentence
from headscope.view.page import assemble
from headscope.view.payload import payload
from headscope.view.picture import BLOCK
from headscope.view.subject import Start, Subject

# Tokens up to which the texts of both sides are written out.
MOST_SHOWN = 600


class Pair(NamedTuple):
    """Two recordings of one input, and what the input is called."""

    name: str
    a: Recording
    b: Recording


def compare(
    a: Recording,
    b: Recording,
    path: str | os.PathLike[str],
    *,
    names: tuple[str, str] = ("before", "after"),
    title: str | None = None,
) -> Path:
    """Write one HTML file that shows two recordings side by side, and return its path.

    The recordings are of one input by two models, or of two inputs of equal length by one model ("… was too tired" and
    "… was too wide"), whose positions are compared one to one.

    For every head it says how much of the weight moved, and shows both maps and their difference. The file makes no
    network request.

    Args:
        a, b: recordings with the same layers, heads and numbers of positions.
        path: where the file goes; one that is there is replaced.
        names: what the two are called.
        title: stands at the top; the name of the model unless given.

    Raises:
        LookError: the two have not the same layers, heads and positions.
        HeadscopeError: the path cannot be written.

    Example:
        >>> import tempfile, torch, headscope as hs
        >>> layer = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
        >>> x = torch.randn(1, 5, 8)
        >>> with hs.record(layer) as a:
        ...     _ = layer(x, x, x)
        >>> with hs.record(layer) as b:
        ...     _ = layer(2 * x, 2 * x, 2 * x)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     compare(a, b, folder + "/both.html").name
        'both.html'
    """
    return write("compare", path, document([Pair("", a, b)], names=names, title=title).encode())


def document(
    pairs: Sequence[Pair], *, names: tuple[str, str] = ("before", "after"), title: str | None = None, above: str = ""
) -> str:
    """The page as text, for one input or several; `above` is HTML that stands before the maps.

    Raises:
        LookError: the two recordings of an input have not the same layers, heads and positions.
    """
    layers: list[Layer] = []
    inputs: list[dict[str, Any]] = []
    for pair in pairs:
        check(pair.a, pair.b)
        first, second = len(layers), len(layers) + len(pair.a.layers)
        inputs += [
            {
                "name": sentence(pair.name or f"item {item}"),
                "item": item,
                "first": first,
                "second": second,
                "moved": moved_of(pair, item),
                "texts": [text_of(side, item) for side in (pair.a, pair.b)],
                "models": [sentence(model_name(side.model)) for side in (pair.a, pair.b)],
            }
            for item in range(min(layer.items for layer in pair.a.layers))
        ]
        layers += [*pair.a.layers, *pair.b.layers]
    subject = Subject("compare", Recording(layers, pairs[0].a.model), findings=False)
    content = payload(subject, Start(0, 0, 0), title=title or "", model=pairs[0].a.model)
    for entry, number in zip(content.data["layers"], [n for pair in pairs for n in 2 * pair.a.numbers], strict=True):
        entry["number"] = number
    content.data["compare"] = {
        "names": [sentence(name) for name in names],
        "numbers": pairs[0].a.numbers,
        "inputs": inputs,
    }
    return assemble(
        content, bundle("compare.js"), style=asset("page.css") + asset("compare.css"), body="compare.html", above=above
    )


def check(a: Recording, b: Recording) -> None:
    """Raise unless the two have the same heads over the same positions."""
    if not a.layers or len(a.layers) != len(b.layers):
        raise LookError(
            f"compare: the recordings have {len(a.layers)} and {len(b.layers)} layers; give two recordings of the same "
            "input by models with the same layers."
        )
    for number, one, two in zip(a.numbers, a.layers, b.layers, strict=True):
        sizes = [(x.items, x.head_numbers, x.q.shape[2], x.k.shape[2]) for x in (one, two)]
        if sizes[0] != sizes[1]:
            said = [f"{s[0]} items, {len(s[1])} heads, {s[2]} queries and {s[3]} keys" for s in sizes]
            raise LookError(f"compare: layer {number} has {said[0]} in one recording, and {said[1]} in the other.")


def text_of(side: Recording, item: int) -> list[str]:
    """The tokens that a side reads, special ones left out; none where it is no text or too long."""
    axis = side.layers[0].keys[item]
    if axis.kind != "tokens" or axis.length > MOST_SHOWN:
        return []
    return [sentence(label.strip()) for label, special in zip(axis.labels, axis.special, strict=True) if not special]


def moved_of(pair: Pair, item: int) -> list[list[float]]:
    """For every layer and head how much of the weight moved."""
    layers = zip(pair.a.layers, pair.b.layers, strict=True)
    return [[moved(a.head(head, item), b.head(head, item)) for head in range(a.heads)] for a, b in layers]


def moved(a: Head, b: Head) -> float:
    """How much of the attention moved: the mean over the queries of half of Σ_j |p_ij - p'_ij|, from 0 to 1.

    The total variation distance of the two rows; special queries are left out, unless there are no others.

    Example:
        >>> import torch
        >>> moved(Head(40 * torch.eye(2), torch.eye(2)), Head(40 * torch.eye(2), torch.eye(2).flip(0)))
        1.0
    """
    rows = [i for i, special in enumerate(a.queries.special) if not special] or list(range(len(a.q)))
    total, step = 0.0, max(1, BLOCK // max(1, len(a.k)))
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        total += float(distance(a.weights(part), b.weights(part)).sum())
    return total / max(1, len(rows))


def distance(p: Float[Tensor, "rows k"], other: Float[Tensor, "rows k"]) -> Float[Tensor, " rows"]:
    """Half of the sum of what the rows differ by."""
    return (p.float() - other.float()).abs().sum(-1) / 2


def text(words: str) -> str:
    """Words as HTML, with everything invisible in them written out."""
    return html.escape(sentence(words))
