"""The folder on disk: one safetensors file per layer, and `recording.json`, written last. No pickle anywhere."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from headscope.errors import RecordingError
from headscope.files import system
from headscope.files.places import with_suffix
from headscope.files.replace_folder import Folder
from headscope.files.tensors_file import write_tensors
from headscope.look.axis import Axis
from headscope.recording.folder import format as form
from headscope.recording.folder.axis_entry import AxisEntry, named
from headscope.recording.folder.reader import INTEGERS, NAMES, SUFFIX, file_name, names_in, rank_name
from headscope.recording.folder.stored_layer import StoredLayer
from headscope.recording.layer import Layer
from headscope.recording.ranks.share import Rank
from headscope.recording.unseen import Missed


class Writer:
    """Writes a recording, layer by layer, beside its place, and moves it there when it is complete."""

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = with_suffix(path, SUFFIX)
        if not self.path.name:
            raise RecordingError(f"{path}: this is no name for a new folder; give one, such as out{SUFFIX}.")
        self.axes: dict[tuple[Axis, bytes | None], int] = {}
        self.entries: list[form.LayerEntry] = []
        self.folder = Folder(self.path, names_in, overwrite=overwrite, fail=RecordingError)

    def add(self, layer: Layer) -> Layer:
        """Write one layer; returns the same layer, with its tensors on the disk."""
        self.entries.append(self._write(len(self.entries), layer))
        return self._stored(len(self.entries) - 1)

    def replace(self, position: int, layer: Layer) -> None:
        """Write one layer again."""
        self.entries[position] = self._write(position, layer)

    def relabel(self, position: int, layer: Layer) -> None:
        """Say again what the positions of a layer are that was written already."""
        queries, keys = (tuple(map(self._axis, axes)) for axes in (layer.queries, layer.keys))
        self.entries[position] = msgspec.structs.replace(self.entries[position], queries=queries, keys=keys)

    def _stored(self, position: int) -> Layer:
        return StoredLayer(
            self.folder.path / file_name(position), self.entries[position], [axis for axis, _ in self.axes]
        )

    def _write(self, position: int, layer: Layer) -> form.LayerEntry:
        tensors = tensors_of(layer)
        for name, x in tensors.items():
            if NAMES.get(x.dtype) is None or (x.dtype == torch.int32) != (name in INTEGERS):
                raise RecordingError(
                    f"{self.path}: {name} of layer {layer.name!r} is {x.dtype}, which is not a dtype for it."
                )
        with self.folder.writing(file_name(position)) as file:
            digest = write_tensors(file, tensors)
        return form.LayerEntry(
            named(layer.name),
            layer.kind,
            layer.scale,
            {name: (NAMES[x.dtype], tuple(x.shape)) for name, x in tensors.items()},
            digest,
            tuple(self._axis(axis) for axis in layer.queries),
            tuple(self._axis(axis) for axis in layer.keys),
            layer.softcap,
            layer.number,
            layer.head_numbers,
            layer.rows,
            layer.source,
        )

    def _axis(self, axis: Axis) -> int:
        return self.axes.setdefault((axis, axis.thumbnail), len(self.axes))

    def finish(
        self,
        model: str,
        rank: Rank | None = None,
        missed: Sequence[Missed] = (),
        alignment_heads: Sequence[tuple[int, int]] = (),
    ) -> Path:
        """Write `recording.json` and move the folder to its place.

        Raises:
            RecordingError: something in it is beyond the bounds of the format, or the folder cannot be written.
        """
        version = importlib.metadata.version("headscope")
        body = form.Body(
            version, str(torch.__version__), named(model), *named_once([axis for axis, _ in self.axes], self.entries)
        )
        body.rank = None if rank is None else form.RankEntry(*rank)
        body.missed = tuple(form.MissedEntry(*map(named, one)) for one in missed[: form.MOST_MISSED])
        body.alignment_heads = tuple(alignment_heads[: form.MOST_ALIGNING])
        form.check(str(self.path), body)  # what could not be read again is not written
        with self.folder.writing(form.NAME) as file:
            file.write(form.encode(body))
        return self.folder.commit()

    def abandon(self) -> None:
        """Leave nothing behind."""
        self.folder.abandon()


def place_of(path: Path, rank: Rank | None) -> Path:
    """The folder of a recording; where several processes record, each has one of its own inside of it.

    Raises:
        RecordingError: the folder around them cannot be made, or a whole recording has its name.
    """
    if rank is None:
        return path
    # Whoever loads the name would get the whole one, and not what is written now.
    for one in (path, with_suffix(path, SUFFIX)):
        if os.path.lexists(one / form.NAME):
            raise RecordingError(
                f"{one}: is a whole recording, and {rank} has only a part to save; give another name, or remove it."
            )
    try:
        system.make_folders(path)
    except OSError as error:
        raise RecordingError(f"{path}: the folder of the ranks cannot be made: {error.strerror}.") from error
    return path / rank_name(rank.number)


def save(
    layers: Sequence[Layer],
    path: Path,
    model: str,
    rank: Rank | None,
    missed: Sequence[Missed],
    alignment_heads: Sequence[tuple[int, int]],
    *,
    overwrite: bool = False,
) -> Path:
    """Write a recording to a folder, whole or not at all."""
    writer = Writer(place_of(path, rank), overwrite=overwrite)
    try:
        for layer in layers:
            writer.add(layer)
        return writer.finish(model, rank, missed, alignment_heads)
    except BaseException:
        writer.abandon()
        raise


def named_once(
    axes: Sequence[Axis], entries: Sequence[form.LayerEntry]
) -> tuple[tuple[AxisEntry, ...], tuple[form.LayerEntry, ...]]:
    """The axes that are in use, and the layers with the new numbers of theirs."""
    used = {old: new for new, old in enumerate(sorted({i for one in entries for i in (*one.queries, *one.keys)}))}

    def renumbered(entry: form.LayerEntry) -> form.LayerEntry:
        queries, keys = (tuple(used[i] for i in which) for which in (entry.queries, entry.keys))
        return msgspec.structs.replace(entry, queries=queries, keys=keys)

    return thumbnails_once([AxisEntry.of(axes[i]) for i in used]), tuple(map(renumbered, entries))


def thumbnails_once(entries: Sequence[AxisEntry]) -> tuple[AxisEntry, ...]:
    """The entries, with a picture that several show, such as the windows of one, written in the first of them."""
    first: dict[bytes, int] = {}
    for number, entry in enumerate(entries):
        if entry.thumbnail is not None and first.setdefault(entry.thumbnail, number) < number:
            entry.picture, entry.thumbnail = first[entry.thumbnail], None
    return tuple(entries)


def tensors_of(layer: Layer) -> dict[str, Tensor]:
    """The tensors of a layer by their names on disk, on the CPU."""
    found = {"q": layer.q, "k": layer.k, "v": layer.v, "bias": layer.bias, "sinks": layer.sinks, "lse": layer.lse}
    found["by_offset"] = layer.by_offset
    if layer.runs is not None:
        found |= {"start": layer.runs.start, "stop": layer.runs.stop}
    return {name: x.detach().cpu() for name, x in found.items() if x is not None}
