"""Reading a recording's folder: headers when it is opened, a layer's tensors when somebody looks at them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from safetensors import SafetensorError, safe_open

from headscope.errors import RecordingError
from headscope.files.bounded import plain, read_bounded
from headscope.files.places import shown_end, with_suffix
from headscope.files.replace_file import reason
from headscope.files.replace_folder import found
from headscope.recording.folder import format as form
from headscope.recording.folder.stored_layer import StoredLayer, identity, same_file
from headscope.recording.layer import Layer
from headscope.recording.ranks.share import Rank
from headscope.recording.unseen import Missed

SUFFIX = ".headscope"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I32": torch.int32}
INTEGERS = ("start", "stop")
# How often a folder is read again that was replaced meanwhile, and the seconds between.
TRIES, PAUSE = 20, 0.02
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def file_name(position: int) -> str:
    """The file of a layer. Its name is made from a position: nothing in a file can lead out of the folder."""
    return f"layer-{position:05}.safetensors"


def rank_name(number: int) -> str:
    """The folder of the recording of one of several processes."""
    return f"rank-{number:05}{SUFFIX}"


class Content(NamedTuple):
    """What a folder holds: layers, the name of their model, whose part they are, and what else it says."""

    layers: list[Layer]
    model: str
    rank: Rank | None
    missed: tuple[Missed, ...]
    alignment_heads: tuple[tuple[int, int], ...]


def load(path: Path) -> Content:
    """What a folder holds; headers are read and checked.

    A folder that is replaced while it is read is read again.
    """
    try:
        if not (found(path) / form.NAME).exists() and found(with_suffix(path, SUFFIX)).is_dir():
            path = with_suffix(path, SUFFIX)
    except (OSError, ValueError) as error:
        raise RecordingError(f"{shown_end(str(path))}: {reason(error)}; give the folder of a recording.") from None
    for _ in range(TRIES):
        here = found(path)
        before = identity(here)
        try:
            content = headers(here)
        except RecordingError:
            if identity(here) == before and found(path) == here:
                raise
        else:
            if identity(here) == before:
                return content
        time.sleep(PAUSE)
    raise RecordingError(f"{path}: is being replaced again and again; load it when that is done.")


def headers(path: Path) -> Content:
    """What the files of a folder say at this moment."""
    if not path.is_dir():
        raise RecordingError(f"{path}: there is no such folder; give the folder of a recording, NAME{SUFFIX}.")
    file = path / form.NAME
    try:
        os.lstat(file)
    except FileNotFoundError:
        raise RecordingError(
            f"{path}: has no {form.NAME}: it is no recording, or one whose writing was broken off."
        ) from None
    except OSError as error:
        raise RecordingError(f"{file}: cannot be read: {reason(error)}.") from None
    body = form.decode(str(file), read_json(file))
    form.check(str(file), body)
    for position, entry in enumerate(body.layers):
        check_header(path / file_name(position), entry)
    axes = form.axes_of(body)
    layers: list[Layer] = [StoredLayer(path / file_name(i), entry, axes) for i, entry in enumerate(body.layers)]
    rank = None if body.rank is None else Rank(*msgspec.structs.astuple(body.rank))
    missed = tuple(Missed(*msgspec.structs.astuple(one)) for one in body.missed)
    return Content(layers, body.model, rank, missed, body.alignment_heads)


def read_json(file: Path) -> bytes:
    """The bytes of `recording.json`."""
    return read_bounded(file, form.LARGEST, RecordingError)


def parts_in(path: Path) -> list[Path]:
    """The folders that several processes saved inside of this one; none where it is a recording itself."""
    beside = with_suffix(path, SUFFIX)
    try:
        if (path / form.NAME).exists() or (beside / form.NAME).exists() or not path.is_dir():
            return []
    except (OSError, ValueError):  # a name that no file can have: `load` says so
        return []
    found = sorted(path.glob(rank_name(0).replace("0" * 5, "[0-9]" * 5)))
    link = next((part for part in found if part.is_symlink()), None)
    if link is not None:
        raise RecordingError(f"{link}: is a link; nothing outside the folder of a recording is read.")
    return found


def check_header(file: Path, entry: form.LayerEntry) -> None:
    """Raise `RecordingError` unless the header of a layer's file says what `recording.json` says of it."""
    plain(file, RecordingError)
    try:
        with same_file(file) as here, safe_open(here, "pt") as tensors:
            found = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            shapes = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in found.items()}
    except (OSError, SafetensorError, ValueError) as error:
        raise RecordingError(f"{file}: field header: {error}; the file is damaged.") from None
    for name in sorted(shapes.keys() | entry.tensors.keys()):
        if shapes.get(name) != entry.tensors.get(name):
            raise RecordingError(
                f"{file}: field {name}: the file has {shapes.get(name)} and {form.NAME} says {entry.tensors.get(name)}."
            )
        if shapes[name][0] not in DTYPES or (shapes[name][0] == "I32") != (name in INTEGERS):
            raise RecordingError(f"{file}: field {name}: {shapes[name][0]} is not a dtype for it.")


def names_in(path: Path) -> set[str] | None:
    """The names of the files of a recording in a folder; None where there is none that headscope wrote.

    The proof is the format's own: a `recording.json` whose digest is right.
    """
    try:
        body = form.decode(str(path / form.NAME), read_json(path / form.NAME))
    except RecordingError:
        return None
    return {form.NAME, *(file_name(position) for position in range(len(body.layers)))}
