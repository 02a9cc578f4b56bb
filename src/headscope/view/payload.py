"""A recording as what travels in the page: one dictionary for JSON, and the numbers of q and k as base64."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headscope.attention.masks.runs import Runs
from headscope.errors import LookError
from headscope.look.measures import MEASURES
from headscope.recording.recording import Layer
from headscope.view.axis_payload import Axes
from headscope.view.colour import table
from headscope.view.derived import ROLLOUT, SENTENCE, rollout_layer
from headscope.view.headline import Headline, bare, headlines
from headscope.view.labels import model_name, sentence, visible
from headscope.view.precision import Packed, packed
from headscope.view.subject import Start, Subject
from headscope.view.thumbnails import thumbnails as small_pictures

# A browser holds the weights of one head as a whole: 64 MiB at this many.
MOST_WEIGHTS = 2**24


@dataclass
class Table:
    """Things that several layers share, each once."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    places: dict[Hashable, int] = field(default_factory=dict)

    def place(self, key: Hashable, entry: dict[str, Any]) -> int:
        """Where the entry stands; it is added unless it is there already."""
        if key not in self.places:
            self.places[key] = len(self.entries)
            self.entries.append(entry)
        return self.places[key]


@dataclass
class Payload:
    """What the browser gets.

    Attributes:
        data: plain values, ready for JSON.
        chunks: the numbers of q and k, or the scores, for every layer and item, in base64.
        error: the largest measured difference between the page's weights and the exact ones.
    """

    data: dict[str, Any]
    chunks: list[str]
    error: float


def payload(
    subject: Subject,
    start: Start,
    *,
    title: str = "",
    model: str = "",
    thumbnails: bool = True,
    generated: Sequence[str] = (),
) -> Payload:
    """Everything that the page shows: axes, runs, biases, q, k, findings and colours.

    Args:
        thumbnails: whether pictures and spectrograms travel in the page.
        generated: the tokens that the model made, one at each of the last queries: the page has a slider over these.

    Raises:
        LookError: a layer has more weights than a browser can hold.
    """
    axes = Axes(tuple(axis for layer in subject.layers for axis in (*layer.queries, *layer.keys)), thumbnails)
    runs, biases = Table(), Table()
    layers: list[dict[str, Any]] = []
    chunks: list[str] = []
    worst = 0.0
    derived = rollout_layer(subject) if subject.described else None
    names: list[int | str] = [*subject.recording.numbers, *([ROLLOUT] if derived is not None else [])]
    for number, layer in zip(names, [*subject.layers, *([derived] if derived is not None else [])], strict=True):
        check_size(subject.what, number, layer)
        numbers = packed(layer)
        worst = max(worst, numbers.error)
        layers.append(
            {
                "name": sentence(layer.name),
                "number": number,
                "derived": layer is derived,
                "kind": layer.kind,
                "heads": list(layer.head_numbers),
                "groups": layer.k.shape[1],
                "size": layer.q.shape[3],
                "queries": axes.places(layer.queries),
                "keys": axes.places(layer.keys),
                "runs": None if layer.runs is None else shared(runs, runs_entry(layer.runs, layer.k.shape[2])),
                "bias": None if numbers.bias is None else shared(biases, bias_entry(numbers.bias, layer)),
                "form": "scores" if numbers.k is None else "q and k",
                "softcap": None if numbers.k is None else layer.softcap,
                "sinks": None if layer.sinks is None else layer.sinks.detach().double().clamp(-1e300, 1e300).tolist(),
                "wide": numbers.wide.tolist(),
                "factors": numbers.factors.tolist(),
                "chunks": list(range(len(chunks), len(chunks) + layer.items)),
                "lengths": None if layer.v is None or not subject.described else lengths(layer.v),
            }
        )
        chunks.extend(chunk(numbers, item) for item in range(layer.items))
    data = {
        "title": sentence(title),
        "model": sentence(model_name(model)),
        "single": subject.single,
        "start": start._asdict() | {"special": "hidden" if silence(subject.layers[start.layer]) else "shown"},
        "generated": made_by(subject, generated, axes),
        "times": times_entry(subject, axes),
        "error": worst,
        "axes": axes.entries,
        "images": axes.images,
        "runs": runs.entries,
        "biases": biases.entries,
        "layers": layers,
        "heads": head_entries(subject, derived is not None) if subject.described else None,
        "thumbnails": small_pictures(subject, derived) if subject.described else None,
        "missed": [[sentence(part) for part in module] for module in subject.missed],
        "colours": {theme: base64.b64encode(table(theme).tobytes()).decode() for theme in ("light", "dark")},
    }
    return Payload(data, chunks, worst)


def chunk(numbers: Packed, item: int) -> str:
    """The numbers of one layer and item: group by group, the queries (or scores) of its heads and then its keys."""
    parts = []
    groups = numbers.q[item].chunk(len(numbers.wide))
    for group, (queries, wide) in enumerate(zip(groups, numbers.wide, strict=True)):
        both = (queries,) if numbers.k is None else (queries, numbers.k[item, group])
        parts += [x if wide else x.half() for x in both]
    return encoded(*parts)


def check_size(what: str, number: int | str, layer: Layer) -> None:
    """Refuse a layer whose heads have more weights than a browser can hold."""
    q, k = layer.q.shape[2], layer.k.shape[2]
    if q * k > MOST_WEIGHTS:
        raise LookError(
            f"{what}: layer {number} has {q} x {k} weights in each head and one page holds 4096 x 4096; record fewer "
            f"queries, for example hs.record(model, queries=range({min(q, MOST_WEIGHTS // k)})), or look at all of it "
            "as a map: hs.serve(recording), or headscope serve DIR."
        )


def runs_entry(runs: Runs, keys: int) -> dict[str, Any]:
    """Runs for JSON: start and stop of every run, one after the other."""
    both = torch.stack([runs.start, runs.stop], dim=-1).cpu().numpy()
    bits = 16 if keys < 2**16 else 32
    data = base64.b64encode(both.astype(f"<u{bits // 8}").tobytes()).decode()
    return {"shape": list(runs.start.shape), "bits": bits, "data": data}


def bias_entry(bias: Tensor, layer: Layer) -> dict[str, Any]:
    """A bias for JSON: whole, or one number for each offset."""
    values = bias.contiguous()
    line = bias.ndim == 3
    return {
        "shape": [*bias.shape[:2], layer.q.shape[2], layer.k.shape[2]] if line else list(bias.shape),
        "form": "offset" if line else "dense",
        "bits": 8 * values.element_size(),
        "data": encoded(values),
    }


def made_by(subject: Subject, texts: Sequence[str], axes: Axes) -> dict[str, Any] | None:
    """The steps of a generation for JSON: what each made, and the axis whose last positions are the steps."""
    axis = subject.layers[-1].queries[0]
    if not texts or len(texts) > axis.length:
        return None
    return {"texts": [visible(text) for text in texts], "axis": axes.place(axis)}


def times_entry(subject: Subject, axes: Axes) -> dict[str, Any] | None:
    """When each token was spoken, for JSON: its axis, for each position its first frame and the one behind its last."""
    found = subject.times
    if found is None:
        return None
    layer = subject.layers[subject.recording.numbers.index(found.heads[0][0])]
    spans: list[list[int] | None] = [None] * layer.queries[0].length
    for token in found.tokens:
        spans[token.position] = [token.first, token.stop]
    return {"axis": axes.place(layer.queries[0]), "spans": spans, "heads": [list(place) for place in found.heads]}


def silence(layer: Layer) -> bool:
    """Whether the keys of a layer are frames of which some only fill the sound up; these are left out at first."""
    axis = layer.keys[0]
    return axis.kind == "frames" and any(axis.special) and not all(axis.special)


def head_entries(subject: Subject, derived: bool = False) -> dict[str, Any]:
    """What is known of every head: its headline, its other findings, its statistics, and which heads come first.

    `said` holds for every layer and head a list of `[kind, text, query, key]`, the headline first; `order` the places
    of the heads, those with the most informative finding first; `measures` a number for every layer and head, by name.
    """
    first = headlines(subject)
    said = [
        [[entry(first[number, head])] for head in layer.head_numbers]
        for number, layer in zip(subject.recording.numbers, subject.layers, strict=True)
    ]
    order: dict[tuple[int, int], None] = {}
    for finding in subject.findings:
        layer, row = subject.place(finding.layer, finding.head)
        if (layer, row) in order:
            places = [finding.evidence.get(name) for name in ("query", "key")]
            said[layer][row].append([finding.kind, sentence(bare(finding)), *places])
        order[layer, row] = None
    rows = {(int(row["layer"]), int(row["head"])): row for row in subject.measures}
    measures = {
        name: [
            [digits(rows[number, head].get(name)) for head in layer.head_numbers]
            for number, layer in zip(subject.recording.numbers, subject.layers, strict=True)
        ]
        for name in subject.measures.columns
        if name in MEASURES
    }
    if derived:
        said.append([[[ROLLOUT, SENTENCE, None, None]]])
        measures = {name: [*rows_, [None]] for name, rows_ in measures.items()}
    return {"said": said, "order": [list(place) for place in order], "measures": measures}


def entry(headline: Headline) -> list[Any]:
    """A headline for JSON."""
    return [headline.kind, headline.text, headline.query, headline.key]


def digits(value: float | None) -> float | None:
    """A number in four digits; None where it is none."""
    return None if value is None or math.isnan(value) else float(f"{value:.4g}")


def lengths(v: Tensor) -> str:
    """The length of every value, `(b, g, k)`, in sixteen bits: what a weight carries is proportional to it."""
    found = v.detach().cpu().float().norm(dim=-1).nan_to_num(0.0, 6e4, 6e4)
    return encoded(found.clamp(max=6e4).half())


def shared(table: Table, entry: dict[str, Any]) -> int:
    """The place of an entry among those that are equal to it."""
    digest = hashlib.sha256(entry["data"].encode()).digest()
    return table.place((digest, *entry["shape"], entry["bits"]), entry)


def encoded(*tensors: Tensor) -> str:
    """The numbers of the tensors, one after the other, little-endian, in base64."""
    arrays = (tensor.numpy() for tensor in tensors)
    return base64.b64encode(b"".join(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays)).decode()


def decoded(text: str, dtype: str) -> np.ndarray:
    """The numbers of a text that `encoded` made; the inverse, for checking."""
    return np.frombuffer(base64.b64decode(text), dtype=dtype)
