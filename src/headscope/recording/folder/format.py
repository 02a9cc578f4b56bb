"""`recording.json`: what it says and how it is checked. Everything that is read from a disk passes through here.

| what                       | bound                                                                          |
|----------------------------|--------------------------------------------------------------------------------|
| the file                   | 128 MiB (a million tokens with ids and spans are 50), of a fixed depth           |
| layers, axes, missed       | 2¹⁴, 2¹⁶, 2¹⁶; alignment heads 2¹²                                             |
| a name, a label            | 2¹² and 2²⁰ characters                                                         |
| positions without labels   | as many as there are numbers in the tensors, and 2²⁰                           |
| runs of a query            | as many as there are keys                                                      |
| numbers                    | whole ones below 2⁵³; seconds finite, scale and softcap within 2¹⁰⁰            |
| heads of a layer           | 2¹⁶                                                                            |
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from headscope.errors import RecordingError
from headscope.look.axis import Axis
from headscope.recording.folder.axis_entry import AxisEntry, Integer, Name, Whole

VERSION = 1
NAME = "recording.json"
LARGEST = 2**27
MOST_LAYERS, MOST_AXES, MOST_RANKS, MOST_MISSED, MOST_ALIGNING = 2**14, 2**16, 2**16, 2**16, 2**12
# Heads of a layer: of size 0 they would take no place in the file, and any in memory.
MOST_HEADS = 2**16
# What scores are multiplied with or bounded by: beyond it no float32 holds them.
LARGEST_FACTOR = 2.0**100
# Positions without labels, beyond those that have numbers in a tensor.
MOST_EMPTY = 2**20

Tensors = dict[str, tuple[str, tuple[int, ...]]]


class LayerEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A layer: what is not a tensor, the shapes and dtypes of its tensors, and the digest of their file."""

    name: Name
    kind: Literal["self", "cross", "joint"]
    scale: float
    tensors: Tensors
    sha256: Name
    queries: tuple[Whole, ...]
    keys: tuple[Whole, ...]
    softcap: float | None = None
    number: Integer = -1
    heads: tuple[Whole, ...] = ()
    rows: tuple[Whole, ...] | None = None
    source: Literal["call", "weights"] = "call"


class RankEntry(msgspec.Struct, forbid_unknown_fields=True):
    """Which process of several recorded this, and with which ones it shared out the heads."""

    number: Whole
    of: Whole
    group: Annotated[tuple[Whole, ...], Meta(max_length=MOST_RANKS)]


class MissedEntry(msgspec.Struct, forbid_unknown_fields=True):
    """Attention that ran and was not captured: the path of its module, its class, and the reason."""

    name: Name
    kind: Name
    reason: Name


class Body(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """All that `recording.json` says, except for the format and the digest that protect it."""

    headscope: Name
    torch: Name
    model: Name
    axes: Annotated[tuple[AxisEntry, ...], Meta(max_length=MOST_AXES)]
    layers: Annotated[tuple[LayerEntry, ...], Meta(max_length=MOST_LAYERS)]
    rank: RankEntry | None = None
    missed: Annotated[tuple[MissedEntry, ...], Meta(max_length=MOST_MISSED)] = ()
    alignment_heads: Annotated[tuple[tuple[Whole, Whole], ...], Meta(max_length=MOST_ALIGNING)] = ()


class Envelope(msgspec.Struct):
    """The file: its format version, the digest of the rest, and the rest."""

    format: int
    sha256: str
    recording: msgspec.Raw


def encode(body: Body) -> bytes:
    """The bytes of `recording.json`."""
    raw = msgspec.json.encode(body)
    if len(raw) > LARGEST - 2**10:
        raise RecordingError(
            f"recording: {NAME} would be {len(raw)} bytes long and may have {LARGEST}; record fewer positions, or "
            "leave their labels out."
        )
    return msgspec.json.encode(
        {"format": VERSION, "sha256": hashlib.sha256(raw).hexdigest(), "recording": msgspec.Raw(raw)}
    )


def decode(where: str, data: bytes) -> Body:
    """What the bytes of `recording.json` say.

    Raises:
        RecordingError: not JSON, of a newer format, altered, or not what a recording says.
    """
    try:
        envelope = msgspec.json.decode(data, type=Envelope)
        if envelope.format > VERSION:
            raise RecordingError(
                f"{where}: field format: {envelope.format}; this headscope reads formats up to {VERSION}. Update "
                "headscope to open it."
            )
        if envelope.format != VERSION:
            raise RecordingError(
                f"{where}: field format: {envelope.format} was never a format of headscope; the file is damaged."
            )
        raw = bytes(envelope.recording)
        if hashlib.sha256(raw).hexdigest() != envelope.sha256:
            raise RecordingError(
                f"{where}: field sha256: the file was altered or damaged after it was written. Record again, or "
                "restore a copy."
            )
        return msgspec.json.decode(raw, type=Body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordingError(
            f"{where}: {error}; this is not a recording that headscope wrote, or it is damaged."
        ) from None


def check(where: str, body: Body) -> None:
    """Raise `RecordingError` unless everything in the file fits together."""
    rank = body.rank
    if rank is not None and not (
        rank.number in rank.group
        and len(set(rank.group)) == len(rank.group)
        and all(0 <= number < rank.of <= MOST_RANKS for number in rank.group)
    ):
        raise RecordingError(f"{where}: field rank: {rank.number} of {rank.of}, in {rank.group}, is no rank.")
    for number, axis in enumerate(body.axes):
        if wrong := axis.problem():
            raise RecordingError(f"{where}: field axes[{number}].{wrong}")
        if axis.picture is not None and (axis.picture >= number or body.axes[axis.picture].thumbnail is None):
            raise RecordingError(f"{where}: field axes[{number}].picture: axis {axis.picture} shows no picture.")
    for number, layer in enumerate(body.layers):
        for problem in problems(layer, body.axes):
            raise RecordingError(f"{where}: field layers[{number}].{problem}")
    # An axis is only as long as tensors that are there: what belongs to no layer, or to tensors without numbers, could
    # be of any length.
    there = sum(math.prod(layer.tensors[name][1]) for layer in body.layers for name in ("q", "k"))
    plain = sum(axis.length for axis in body.axes if axis.labels is None)
    if plain > there + MOST_EMPTY:
        raise RecordingError(f"{where}: field axes: {plain} positions for tensors with {there} numbers.")
    used = {number for layer in body.layers for number in (*layer.queries, *layer.keys)}
    for number in set(range(len(body.axes))) - used:
        raise RecordingError(f"{where}: field axes[{number}]: belongs to no layer.")


def axes_of(body: Body) -> list[Axis]:
    """The axes of a file that was checked, those of one picture with the thumbnail that they share."""
    shared = {i: body.axes[entry.picture].thumbnail for i, entry in enumerate(body.axes) if entry.picture is not None}
    axes = [entry.axis() for entry in body.axes]
    return [replace(axis, thumbnail=shared[i]) if i in shared else axis for i, axis in enumerate(axes)]


def problems(layer: LayerEntry, axes: tuple[AxisEntry, ...]) -> list[str]:
    """What does not fit together in the entry of a layer: the field, and why."""
    sizes = {name: tuple(shape) for name, (_, shape) in layer.tensors.items()}
    known = {"q": 4, "k": 4, "v": 4, "start": 4, "stop": 4, "bias": 4, "by_offset": 2, "sinks": 1, "lse": 3}
    wrong = [
        f"tensors.{name}: unknown, or {len(shape)} axes."
        for name, shape in sizes.items()
        if known.get(name) != len(shape)
    ]
    wrong += [f"tensors.{name}: missing." for name in ("q", "k") if name not in sizes]
    if wrong:
        return wrong
    wrong += [
        f"tensors.{name}: a negative size in {shape}." for name, shape in sizes.items() if min(shape, default=0) < 0
    ]
    (b, h, q, d), (kb, g, k, kd) = sizes["q"], sizes["k"]
    if h > MOST_HEADS:
        wrong.append(f"tensors.q: {h} heads; at most {MOST_HEADS} are read.")
    if kb != b or kd != d or h % max(g, 1) or (h and not g):
        wrong.append(f"tensors.k: {sizes['k']} does not fit q {sizes['q']}.")
    if "v" in sizes and sizes["v"][:3] != (b, g, k):
        wrong.append(f"tensors.v: {sizes['v']} does not fit k {sizes['k']}.")
    if sizes.get("start") != sizes.get("stop"):
        wrong.append(f"tensors.stop: {sizes.get('stop')} does not fit start {sizes.get('start')}.")
    if "start" in sizes and sizes["start"][3] > max(k, 1):
        wrong.append(f"tensors.start: {sizes['start'][3]} runs of {k} keys.")
    if "by_offset" in sizes and ("bias" in sizes or sizes["by_offset"][1] != max(q + k - 1, 0)):
        wrong.append(f"tensors.by_offset: {sizes['by_offset']} for {q} queries and {k} keys, or beside a bias.")
    shapes = {"start": (b, h, q, None), "bias": (b, h, q, k), "by_offset": (h, None), "lse": (b, h, q), "sinks": (h,)}
    for name, full in shapes.items():
        if name in sizes and not all(
            have in (1, want) or want is None for have, want in zip(sizes[name], full, strict=True)
        ):
            wrong.append(f"tensors.{name}: {sizes[name]} does not fit {full}.")
    for name, count in (("queries", q), ("keys", k)):
        chosen: tuple[int, ...] = getattr(layer, name)
        if len(chosen) != b or not all(0 <= i < len(axes) for i in chosen):
            wrong.append(f"{name}: {len(chosen)} axes for {b} batch items, or one that does not exist.")
        elif any(axes[i].length != count for i in chosen):
            wrong.append(f"{name}: an axis that is not {count} positions long.")
    for name, factor in (("scale", layer.scale), ("softcap", layer.softcap or 0.0)):
        if not abs(factor) <= LARGEST_FACTOR:
            wrong.append(f"{name}: {factor} is beyond what a float32 holds.")
    if layer.softcap is not None and not layer.softcap > 0:
        wrong.append(f"softcap: {layer.softcap} bounds nothing.")
    if layer.heads and (len(layer.heads) != h or len(set(layer.heads)) != h):
        wrong.append(f"heads: {len(set(layer.heads))} numbers for {h} heads.")
    if layer.rows is not None and len(layer.rows) != q:
        wrong.append(f"rows: {len(layer.rows)} positions for {q} queries.")
    return wrong
