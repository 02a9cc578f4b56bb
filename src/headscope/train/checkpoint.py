"""Checkpoints of a training: tensors as safetensors, the rest as JSON, nothing that is executed when it is read.

```text
FOLDER/step-000500/
  model.safetensors        the weights and buffers
  state.safetensors        the tensors of the optimizer, and the states of the random number generators
  checkpoint.json          the step, all that is not a tensor, and a digest of each file; written last
```

A checkpoint is written beside its place and moved there when it is complete, so that a process that is killed while it
writes leaves the last good one as it was. `checkpoint.json` is read up to 64 MiB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from headscope.errors import TrainingError
from headscope.files import system
from headscope.files.bounded import read_bounded
from headscope.files.claims import retire
from headscope.files.digests import digest_of_file
from headscope.files.replace_file import reason
from headscope.files.replace_folder import Folder
from headscope.files.tensors_file import write_tensors
from headscope.train.randomness import RandomStates
from headscope.train.states import pack, unpack

FORMAT = 1
LARGEST = 2**26
MODEL, STATE, REST = "model.safetensors", "state.safetensors", "checkpoint.json"


class Content(msgspec.Struct):
    """`checkpoint.json`."""

    format: int
    step: int
    files: dict[str, str]
    parts: dict[str, Any]
    random: Any
    extra: Any


@runtime_checkable
class Stateful(Protocol):
    """An optimizer, a scheduler, or anything else whose state can be taken and given back."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> object:
        """Take a state over."""


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint said besides the states it gave back.

    Attributes:
        step: how many steps were done.
        extra: what the caller put in.
        path: its folder.
    """

    step: int
    extra: dict[str, Any]
    path: Path


def save(
    folder: str | Path,
    step: int,
    model: nn.Module,
    parts: Mapping[str, Stateful | torch.Generator] | None = None,
    *,
    extra: Mapping[str, Any] | None = None,
    keep: int = 2,
) -> Path:
    """Write a checkpoint, whole or not at all, and remove all but the last ones.

    Args:
        folder: of all checkpoints of a training; this one becomes `FOLDER/step-000500`.
        step: how many steps were done.
        parts: what else has a state, by a name: `{"optimizer": optimizer, "scheduler": scheduler}`; generators too.
        extra: anything that JSON can hold, such as the place in the data.
        keep: how many checkpoints stay.

    Raises:
        TrainingError: no room on the disk, a place that cannot be written, a state that is neither tensors nor JSON;
            the checkpoints that were there are still there.

    Example:
        >>> import tempfile
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(folder, 500, model, {"optimizer": optimizer}, extra={"epoch": 3}).name
        ...     found = load(folder, model, {"optimizer": optimizer})
        ...     found.step, found.extra
        'step-000500'
        (500, {'epoch': 3})
    """
    if keep < 1:
        raise TrainingError(f"checkpoint: keep={keep}; give how many checkpoints are to stay, 1 or more.")
    folder = Path(folder)
    target = folder / f"step-{step:06}"
    refuse_older(folder, step)
    tensors: dict[str, Tensor] = {}
    rest = {
        "parts": {name: pack(state_of(part), name, tensors) for name, part in (parts or {}).items()},
        "random": pack(RandomStates.now(model).state(), "random", tensors),
        "extra": pack(dict(extra or {}), "extra", tensors),
    }
    failed = "the checkpoints before it are still there."
    try:
        system.make_folders(folder)
    except OSError as error:
        raise TrainingError(f"checkpoint: {target} cannot be written ({reason(error)}); {failed}") from error
    written = Folder(target, names_in, overwrite=True, fail=lambda text: TrainingError(f"checkpoint: {text} {failed}"))
    try:
        digests = {}
        for name, content in ((MODEL, model.state_dict()), (STATE, tensors)):
            with written.writing(name) as file:
                digests[name] = write_tensors(file, content)
        with written.writing(REST) as file:
            file.write(json.dumps({"format": FORMAT, "step": step, "files": digests, **rest}).encode())
        written.commit()
    finally:
        written.abandon()
    clean(folder, keep)
    return target


def load(folder: str | Path, model: nn.Module, parts: Mapping[str, Stateful | torch.Generator] | None = None) -> Loaded:
    """Give a model, its optimizer and the rest the states of the last checkpoint; the random numbers go on too.

    Args:
        folder: of all checkpoints, or one of them.
        parts: the same names as were saved.

    Raises:
        TrainingError: there is no checkpoint, or one that is damaged, foreign, or of another model.
    """
    path = found(Path(folder))
    content = read(path)
    named = parts or {}
    if set(named) != set(content.parts):
        raise TrainingError(
            f"checkpoint: {path} has the states of {', '.join(content.parts) or 'nothing'} besides the model, and "
            f"{', '.join(named) or 'nothing'} was given; give the same."
        )
    weights, tensors = (tensors_of(path / name, content.files) for name in (MODEL, STATE))
    try:
        states = {name: unpack(content.parts[name], tensors) for name in named}
        random, extra = (unpack(x, tensors) for x in (content.random, content.extra))
        model.load_state_dict(weights)
        for name, part in named.items():
            give(part, states[name])
        RandomStates.of(random).restore()
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"checkpoint: {path} is of another model or another {' or '.join(named) or 'training'}: {error}"
        ) from error
    return Loaded(content.step, extra, path)


def last(folder: str | Path) -> Path | None:
    """The last checkpoint of a folder; None where there is none. Those whose writing was broken off do not count."""
    return max(complete(Path(folder)), default=None, key=step_of)


def found(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the last one in it."""
    checkpoint = path if (path / REST).exists() else last(path)
    if checkpoint is None:
        raise TrainingError(f"checkpoint: there is none in {path}; give the folder that they were saved to.")
    return checkpoint


def complete(folder: Path) -> list[Path]:
    """Every checkpoint in a folder."""
    there = [path for path in folder.glob("step-*") if (path / REST).is_file()]
    return [path for path in there if path.name.removeprefix("step-").isdecimal()]


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint."""
    return int(path.name.removeprefix("step-"))


def refuse_older(folder: Path, step: int) -> None:
    """Raise `TrainingError` where there is a later checkpoint: it is of another training, which would be mixed in."""
    there = last(folder)
    if there is not None and step_of(there) > step:
        raise TrainingError(
            f"checkpoint: {there} is later than step {step}; load it to go on from there, or give another folder."
        )


def clean(folder: Path, keep: int) -> None:
    """Remove all but the last checkpoints; of what others put beside them nothing."""
    for path in sorted(complete(folder), key=step_of)[:-keep]:
        with suppress(OSError):  # another process removes them, too
            retire(path)


def names_in(path: Path) -> set[str] | None:
    """The names of the files of a checkpoint in a folder; None where there is none that headscope wrote."""
    try:
        read(path)
    except TrainingError:
        return None
    return {MODEL, STATE, REST}


def read(path: Path) -> Content:
    """What `checkpoint.json` says.

    Raises:
        TrainingError: it is not there, not ours, or of a newer format.
    """
    file = path / REST
    try:
        content = msgspec.json.decode(read_bounded(file, LARGEST, TrainingError), type=Content)
    except (TrainingError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TrainingError(
            f"checkpoint: {file} cannot be read ({error}); it is damaged or is something else. Remove {path} to go on "
            "from the checkpoint before it."
        ) from None
    if content.format != FORMAT:
        raise TrainingError(
            f"checkpoint: {file} has format {content.format}, and this headscope reads {FORMAT}; update headscope."
        )
    return content


def tensors_of(file: Path, digests: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of a file, if it is the one that was written.

    Raises:
        TrainingError: it is cut off, altered, or gone.
    """
    try:
        if digest_of_file(file) == digests.get(file.name):
            return load_file(file)
        reason = "it is not the file that was written"
    except (OSError, SafetensorError) as error:
        reason = str(error)
    raise TrainingError(
        f"checkpoint: {file} is damaged: {reason}. Remove {file.parent} to go on from the checkpoint before it."
    )


def state_of(part: Stateful | torch.Generator) -> dict[str, Any]:
    """The state of an optimizer, a scheduler, a generator."""
    return {"state": part.get_state()} if isinstance(part, torch.Generator) else part.state_dict()


def give(part: Stateful | torch.Generator, state: dict[str, Any]) -> None:
    """Give a state back."""
    if isinstance(part, torch.Generator):
        part.set_state(state["state"])
    else:
        part.load_state_dict(state)
