"""The folder on disk: one safetensors file per layer, and `recording.json`, which is written last. No pickle "
"anywhere."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from headscope.errors import RecordingError
from headscope.look.axis import Axis
from headscope.recording.folder import format as form
from headscope.recording.folder import reader
from headscope.recording.folder.reader import INTEGERS, NAMES, SUFFIX, StoredLayer, file_name, rank_name
from headscope.recording.layer import Layer
from headscope.recording.ranks.share import Rank


class Writer:
    """Writes a recording, layer by layer, into a hidden folder beside its place, and moves it there when it is "
    "complete."""

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path if path.name.endswith(SUFFIX) else path.with_name(path.name + SUFFIX)
        self.overwrite = overwrite
        self.axes: dict[Axis, int] = {}
        self.entries: list[form.LayerEntry] = []
        self._refuse()
        self.part = self.path.with_name(f".{self.path.name}.{secrets.token_hex(6)}.part")
        with self._told(self.part):
            self.part.mkdir()

    def _refuse(self) -> None:
        if os.path.lexists(self.path) and not self.overwrite:
            raise RecordingError(f"{self.path}: exists already; give another name, or overwrite=True to replace it.")
        if os.path.lexists(self.path) and not is_ours(self.path):
            raise RecordingError(
                f"{self.path}: exists and is no recording, so it is not overwritten; give another name, or remove it "
                "yourself."
            )

    @contextlib.contextmanager
    def _told(self, file: Path) -> Iterator[None]:
        """Whatever goes wrong while writing a file: nothing is left behind, and the error names the file."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            self.abandon()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise RecordingError(
                f"{self.path}: cannot be written: {reason} (at {file.name}); nothing was left behind."
            ) from error

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
        return StoredLayer(self.part / file_name(position), self.entries[position], list(self.axes))

    def _write(self, position: int, layer: Layer) -> form.LayerEntry:
        file = self.part / file_name(position)
        half = file.with_suffix(".part")
        tensors = tensors_of(layer)
        for name, x in tensors.items():
            if NAMES.get(x.dtype) is None or (x.dtype == torch.int32) != (name in INTEGERS):
                raise RecordingError(
                    f"{self.path}: {name} of layer {layer.name!r} is {x.dtype}, which is not a dtype for it."
                )
        with self._told(file):
            save_file(tensors, half)
            digest = reader.digest_of(half)
            sync(half)
            half.rename(file)
        return form.LayerEntry(
            layer.name,
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
        return self.axes.setdefault(axis, len(self.axes))

    def finish(self, model: str, rank: Rank | None = None) -> Path:
        """Write `recording.json` and move the folder to its place."""
        version = importlib.metadata.version("headscope")
        body = form.Body(version, str(torch.__version__), model, *named_once(list(self.axes), self.entries))
        body.rank = None if rank is None else form.RankEntry(*rank)
        with self._told(self.part / form.NAME):
            half = self.part / (form.NAME + ".part")
            half.write_bytes(form.encode(body))
            sync(half)
            half.rename(self.part / form.NAME)
            sync(self.part)
        self._refuse()
        with self._told(self.path):
            old = self.part.with_suffix(".old")
            if os.path.lexists(self.path):
                self.path.rename(old)
            self.part.rename(self.path)
            sync(self.path.parent)
            shutil.rmtree(old, ignore_errors=True)
        return self.path

    def abandon(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.part, ignore_errors=True)


def place_of(path: Path, rank: Rank | None) -> Path:
    """The folder of a recording; where several processes record, each has one of its own inside of it.

    Raises:
        RecordingError: the folder around them cannot be made, or a whole recording has its name.
    """
    if rank is None:
        return path
    # Whoever loads the name would get the whole one, and not what is written now.
    for one in (path, path.with_name(path.name + SUFFIX)):
        if os.path.lexists(one / form.NAME):
            raise RecordingError(
                f"{one}: is a whole recording, and {rank} has only a part to save; give another name, or remove it."
            )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordingError(f"{path}: the folder of the ranks cannot be made: {error.strerror}.") from error
    return path / rank_name(rank.number)


def save(layers: Sequence[Layer], model: str, path: Path, *, overwrite: bool = False, rank: Rank | None = None) -> Path:
    """Write a recording to a folder, whole or not at all."""
    writer = Writer(place_of(path, rank), overwrite=overwrite)
    try:
        for layer in layers:
            writer.add(layer)
        return writer.finish(model, rank)
    except BaseException:
        writer.abandon()
        raise


def named_once(
    axes: Sequence[Axis], entries: Sequence[form.LayerEntry]
) -> tuple[tuple[form.AxisEntry, ...], tuple[form.LayerEntry, ...]]:
    """The axes that are in use, and the layers with the new numbers of theirs."""
    used = {old: new for new, old in enumerate(sorted({i for one in entries for i in (*one.queries, *one.keys)}))}

    def renumbered(entry: form.LayerEntry) -> form.LayerEntry:
        queries, keys = (tuple(used[i] for i in which) for which in (entry.queries, entry.keys))
        return msgspec.structs.replace(entry, queries=queries, keys=keys)

    return tuple(form.AxisEntry.of(axes[i]) for i in used), tuple(map(renumbered, entries))


def tensors_of(layer: Layer) -> dict[str, Tensor]:
    """The tensors of a layer by their names on disk, on the CPU and each with its own memory."""
    given = {"q": layer.q, "k": layer.k, "v": layer.v, "bias": layer.bias, "sinks": layer.sinks, "lse": layer.lse}
    if layer.runs is not None:
        given |= {"start": layer.runs.start, "stop": layer.runs.stop}
    tensors = {name: x.detach().cpu().contiguous() for name, x in given.items() if x is not None}
    seen: set[int] = set()
    for name, x in tensors.items():
        memory = x.untyped_storage()
        if memory.data_ptr() in seen or memory.nbytes() != x.numel() * x.element_size():
            tensors[name] = x.clone()
        seen.add(memory.data_ptr())
    return tensors


def is_ours(path: Path) -> bool:
    """Whether this is a folder that holds nothing but a recording, or nothing."""
    if path.is_symlink() or not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir()}
    return not names or form.NAME in names


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
