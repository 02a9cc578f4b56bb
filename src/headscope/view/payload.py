"""A recording as what travels in the page: one dictionary for JSON, and the numbers of q and k as base64."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headscope.attention.masks.runs import Runs
from headscope.errors import LookError
from headscope.look.axis import Axis
from headscope.look.findings import Finding
from headscope.recording.recording import Layer
from headscope.view.colour import table
from headscope.view.labels import sentence, visible
from headscope.view.precision import Packed, by_offset, packed
from headscope.view.subject import Start, Subject

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
        chunks: the numbers of q and k for every layer and item, in base64.
        error: the largest measured difference between the page's weights and the exact ones.
    """

    data: dict[str, Any]
    chunks: list[str]
    error: float


def payload(subject: Subject, start: Start, *, title: str = "", model: str = "") -> Payload:
    """Everything that the page shows: axes, runs, biases, q, k, findings and colours.

    Raises:
        LookError: a layer has more weights than a browser can hold.
    """
    axes, runs, biases = Table(), Table(), Table()
    layers: list[dict[str, Any]] = []
    chunks: list[str] = []
    worst = 0.0
    for number, layer in enumerate(subject.layers):
        check_size(subject.what, subject.recording.numbers[number], layer)
        numbers = packed(layer)
        worst = max(worst, numbers.error)
        layers.append(
            {
                "name": sentence(layer.name),
                "number": subject.recording.numbers[number],
                "kind": layer.kind,
                "heads": list(layer.head_numbers),
                "groups": layer.k.shape[1],
                "size": layer.q.shape[3],
                "queries": [axes.place(axis, axis_entry(axis)) for axis in layer.queries],
                "keys": [axes.place(axis, axis_entry(axis)) for axis in layer.keys],
                "runs": None if layer.runs is None else shared(runs, runs_entry(layer.runs, layer.k.shape[2])),
                "bias": None if numbers.bias is None else shared(biases, bias_entry(numbers.bias)),
                "softcap": layer.softcap,
                "sinks": None if layer.sinks is None else layer.sinks.detach().double().clamp(-1e300, 1e300).tolist(),
                "wide": numbers.wide.tolist(),
                "factors": numbers.factors.tolist(),
                "chunks": list(range(len(chunks), len(chunks) + layer.items)),
            }
        )
        chunks.extend(chunk(numbers, item) for item in range(layer.items))
    data = {
        "title": sentence(title),
        "model": sentence(model),
        "single": subject.single,
        "start": start._asdict(),
        "error": worst,
        "axes": axes.entries,
        "runs": runs.entries,
        "biases": biases.entries,
        "layers": layers,
        "findings": [finding_entry(f, *subject.place(f.layer, f.head)) for f in subject.findings],
        "colours": {theme: base64.b64encode(table(theme).tobytes()).decode() for theme in ("light", "dark")},
    }
    return Payload(data, chunks, worst)


def chunk(numbers: Packed, item: int) -> str:
    """The numbers of one layer and item: group by group, the queries of its heads and then its keys."""
    parts = []
    groups = numbers.q[item].chunk(len(numbers.wide))
    for queries, keys, wide in zip(groups, numbers.k[item], numbers.wide, strict=True):
        parts += [x if wide else x.half() for x in (queries, keys)]
    return encoded(*parts)


def check_size(what: str, number: int, layer: Layer) -> None:
    """Refuse a layer whose heads have more weights than a browser can hold."""
    q, k = layer.q.shape[2], layer.k.shape[2]
    if q * k > MOST_WEIGHTS:
        raise LookError(
            f"{what}: layer {number} has {q} x {k} weights in each head and one page holds 4096 x 4096; record fewer "
            f" queries, for example hs.record(model, queries=range({min(q, MOST_WEIGHTS // k)}))."
        )


def axis_entry(axis: Axis) -> dict[str, Any]:
    """An axis for JSON: labels that are plain numbers are left to the browser."""
    return {
        "kind": axis.kind,
        "length": axis.length,
        "labels": None if axis.kind == "positions" else [visible(label) for label in axis.labels],
        "special": [i for i, special in enumerate(axis.special) if special],
        "grid": axis.grid,
        "seconds": axis.seconds,
        "source": None if axis.source is None else visible(Path(axis.source).name),
    }


def runs_entry(runs: Runs, keys: int) -> dict[str, Any]:
    """Runs for JSON: start and stop of every run, one after the other."""
    both = torch.stack([runs.start, runs.stop], dim=-1).cpu().numpy()
    bits = 16 if keys < 2**16 else 32
    data = base64.b64encode(both.astype(f"<u{bits // 8}").tobytes()).decode()
    return {"shape": list(runs.start.shape), "bits": bits, "data": data}


def bias_entry(bias: Tensor) -> dict[str, Any]:
    """A bias for JSON: whole, or one number for each offset."""
    offsets = by_offset(bias)
    values = (bias if offsets is None else offsets).contiguous()
    return {
        "shape": list(bias.shape),
        "form": "dense" if offsets is None else "offset",
        "bits": 8 * values.element_size(),
        "data": encoded(values),
    }


def finding_entry(finding: Finding, layer: int, head: int) -> dict[str, Any]:
    """A finding for JSON: the place of its head in the recording, and its text without the head's name."""
    text = finding.text.removeprefix(f"layer {finding.layer} head {finding.head}").lstrip(": ")
    places = {name: finding.evidence.get(name) for name in ("query", "key")}
    return {"text": sentence(text), "layer": layer, "head": head, "kind": finding.kind, **places}


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
