"""Starting again in the folder of a training: what headscope wrote there goes, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from headscope.errors import TrainingError
from headscope.files import system
from headscope.files.bounded import read_bounded
from headscope.files.claims import BY_LIBRARIES, retire
from headscope.recording.folder.reader import names_in as names_of_recording
from headscope.train.checkpoint import names_in as names_of_checkpoint

ABOUT, LARGEST = "finetune.json", 2**20
WRITTEN = re.compile(rf"finetune\.json|scores\.json|heads\.csv|report\.html|{BY_LIBRARIES.pattern}")
OF_WATCH = re.compile(r"heads\.jsonl|heads\.parquet|watch\.json|events\.out\.tfevents\..*")


def remove_training(folder: Path) -> None:
    """Remove the files of a training from its folder; those of others stay.

    Raises:
        TrainingError: the folder has no description of a training that headscope wrote.
    """
    try:
        about = json.loads(read_bounded(folder / ABOUT, LARGEST, TrainingError))
        proven = isinstance(about, dict) and {"task", "data", "seed"} <= about.keys()
    except ValueError:
        proven = False
    if not proven:
        raise TrainingError(
            f"-o {folder}: {ABOUT} in it is not one that headscope wrote, so the folder stays. Give another name."
        )
    for path in list(folders_written(folder)):
        retire(path)
    best = re.compile(r"best\.safetensors")
    for inside, names in ((folder / "heads", OF_WATCH), (folder / "checkpoints", best), (folder, WRITTEN)):
        if not inside.is_dir() or inside.is_symlink():
            continue
        # The description goes last: until then the folder is known for what it is.
        for path in sorted(inside.iterdir(), key=lambda path: path.name == ABOUT):
            if names.fullmatch(path.name) and not path.is_dir():
                with suppress(OSError):
                    system.remove(path)
        if inside != folder:
            with suppress(OSError):
                system.remove_folder(inside)


def folders_written(folder: Path) -> Iterator[Path]:
    """The recordings and checkpoints in the folder of a training, each proven by its own format."""
    for inside, proof in (("heads", names_of_recording), ("checkpoints", names_of_checkpoint)):
        if (folder / inside).is_symlink():
            continue
        yield from (path for path in (folder / inside).glob("step-*") if proof(path) is not None)
