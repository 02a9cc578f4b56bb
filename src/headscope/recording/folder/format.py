"""`recording.json`: what it says and how it is checked. Everything that is read from a disk passes through here."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from headscope.errors import RecordingError
from headscope.look.axis import Axis

VERSION = 1
NAME = "recording.json"
# A recording of a million tokens is some 50 MB of labels; what is far above that is no recording.
LARGEST = 2**30

# More processes than any machine runs.
MOST_RANKS = 2**20

Tensors = dict[str, tuple[str, tuple[int, ...]]]


class AxisEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An axis; plain positions are only a length."""

    kind: Literal["tokens", "patches", "frames", "positions"]
    length: int
    labels: tuple[str, ...] | None = None
    special: tuple[int, ...] = ()
    ids: tuple[int, ...] | None = None
    spans: tuple[tuple[int, int] | None, ...] | None = None
    grid: tuple[int, int] | None = None
    source: str | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, axis: Axis) -> AxisEntry:
        """What is written of an axis."""
        special = tuple(i for i, mark in enumerate(axis.special) if mark)
        labels = None if axis == Axis.positions(axis.length) else axis.labels
        return cls(axis.kind, axis.length, labels, special, axis.ids, axis.spans, axis.grid, axis.source, axis.seconds)

    def axis(self) -> Axis:
        """The axis that was written."""
        if self.labels is None:
            return Axis.positions(self.length)
        marks = set(self.special)
        special = tuple(i in marks for i in range(self.length))
        return Axis(
            self.kind, self.length, self.labels, special, self.ids, self.spans, self.grid, self.source, self.seconds
        )


class LayerEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A layer: what is not a tensor, the shapes and dtypes of its tensors, and the digest of their file."""

    name: str
    kind: Literal["self", "cross"]
    scale: float
    tensors: Tensors
    sha256: str
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    softcap: float | None = None
    number: int = -1
    heads: tuple[int, ...] = ()
    rows: tuple[int, ...] | None = None
    source: Literal["call", "weights"] = "call"


class RankEntry(msgspec.Struct, forbid_unknown_fields=True):
    """Which process of several recorded this, and with which ones it shared out the heads."""

    number: int
    of: int
    group: tuple[int, ...]


class Body(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """All that `recording.json` says, except for the format and the digest that protect it."""

    headscope: str
    torch: str
    model: str
    axes: tuple[AxisEntry, ...]
    layers: tuple[LayerEntry, ...]
    rank: RankEntry | None = None


class Envelope(msgspec.Struct):
    """The file: its format version, the digest of the rest, and the rest."""

    format: int
    sha256: str
    recording: msgspec.Raw


def encode(body: Body) -> bytes:
    """The bytes of `recording.json`."""
    raw = msgspec.json.encode(body)
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
        for name in ("labels", "ids", "spans"):
            given = getattr(axis, name)
            if given is not None and len(given) != axis.length:
                raise RecordingError(
                    f"{where}: field axes[{number}].{name}: {len(given)} entries for {axis.length} positions."
                )
        if axis.labels is None and axis.kind != "positions":
            raise RecordingError(f"{where}: field axes[{number}].labels: {axis.kind} without labels.")
        if not 0 <= axis.length < 2**31:
            raise RecordingError(f"{where}: field axes[{number}].length: {axis.length} is no number of positions.")
        if axis.grid is not None and not (min(axis.grid) > 0 and axis.grid[0] * axis.grid[1] <= axis.length):
            raise RecordingError(
                f"{where}: field axes[{number}].grid: {axis.grid} does not fit {axis.length} positions."
            )
    for number, layer in enumerate(body.layers):
        for problem in problems(layer, body.axes):
            raise RecordingError(f"{where}: field layers[{number}].{problem}")
    # An axis is only as long as tensors that are there: what belongs to no layer could be of any length.
    used = {number for layer in body.layers for number in (*layer.queries, *layer.keys)}
    for number in set(range(len(body.axes))) - used:
        raise RecordingError(f"{where}: field axes[{number}]: belongs to no layer.")


def problems(layer: LayerEntry, axes: tuple[AxisEntry, ...]) -> list[str]:
    """What does not fit together in the entry of a layer: the field, and why."""
    sizes = {name: tuple(shape) for name, (_, shape) in layer.tensors.items()}
    known = {"q": 4, "k": 4, "v": 4, "start": 4, "stop": 4, "bias": 4, "sinks": 1, "lse": 3}
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
    if kb != b or kd != d or g < 1 or h % g:
        wrong.append(f"tensors.k: {sizes['k']} does not fit q {sizes['q']}.")
    if min(h, d) < 1:
        wrong.append(f"tensors.q: {sizes['q']} has no numbers.")
    if "v" in sizes and sizes["v"][:3] != (b, g, k):
        wrong.append(f"tensors.v: {sizes['v']} does not fit k {sizes['k']}.")
    if sizes.get("start") != sizes.get("stop"):
        wrong.append(f"tensors.stop: {sizes.get('stop')} does not fit start {sizes.get('start')}.")
    for name, full in (("start", (b, h, q, None)), ("bias", (b, h, q, k)), ("lse", (b, h, q)), ("sinks", (h,))):
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
    if layer.softcap is not None and not layer.softcap > 0:
        wrong.append(f"softcap: {layer.softcap} bounds nothing.")
    if layer.heads and len(layer.heads) != h:
        wrong.append(f"heads: {len(layer.heads)} numbers for {h} heads.")
    if layer.rows is not None and len(layer.rows) != q:
        wrong.append(f"rows: {len(layer.rows)} positions for {q} queries.")
    return wrong
