"""The folder of a fine-tuning: made, or found to be of this very run."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headscope.errors import TrainingError
from headscope.files.bounded import read_bounded
from headscope.files.digests import differences
from headscope.files.places import made_folder
from headscope.files.replace_file import write
from headscope.hf.identity import identity_of
from headscope.hf.models import Loaded
from headscope.train.data import Examples
from headscope.train.prepare import Prepared
from headscope.train.remove_training import remove_training
from headscope.train.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ABOUT, REPORT, CHECKPOINTS, HEADS = "finetune.json", "report.html", "checkpoints", "heads"
SCORES, TABLE = "scores.json", "heads.csv"
# The format of ABOUT, and the most bytes it may have; which of its entries are digests.
FORMAT, LARGEST, DIGESTS = 2, 2**20, ("data", "evaluation data", "weights", "tokenizer")
# What may differ between a run and the one that goes on with it.
FREE = ("output", "resume", "overwrite", "data", "eval_data", "model")


def described(settings: Settings, prepared: Prepared, train: Examples, held: Examples) -> dict[str, Any]:
    """What makes a run this one; another run is not resumed from its checkpoints."""
    about = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(settings).items()
        if name not in FREE
    }
    digests = {"data": train.digest, "evaluation data": held.digest}
    identity = identity_of(Loaded(prepared.name, prepared.model, prepared.tokenizer))
    return {"format": FORMAT, **about, "task": train.task.name, **digests, **identity}


def make_ready(settings: Settings, about: dict[str, Any]) -> None:
    """Make the output folder, or see that it is of this very run.

    Raises:
        TrainingError: it holds something, and neither --resume nor --overwrite was given, or it is of another run.
    """
    folder, file = settings.output, settings.output / ABOUT
    there = os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir()))
    if there and not file.is_file():
        raise TrainingError(
            f"-o {folder}: this exists and is no training of headscope, so it stays. Give another name."
        )
    if there and settings.overwrite:
        remove_training(folder)
    elif there and not settings.resume:
        raise TrainingError(
            f"-o {folder}: there is a training in it. Go on with it: --resume; replace it: --overwrite; "
            "or give another folder."
        )
    elif there:
        refuse_other(file, about)
        return
    made_folder("-o", folder)
    write("finetune", file, json.dumps(about, indent=1).encode())


def refuse_other(file: Path, about: dict[str, Any]) -> None:
    """Raise `TrainingError` unless the training in a folder was asked for in the same words."""
    try:
        was = json.loads(read_bounded(file, LARGEST, TrainingError))
    except ValueError:
        was = None
    if not isinstance(was, dict):
        raise TrainingError(f"{file}: this is damaged. Give another folder, or remove this one yourself.")
    other = differences(was, about)
    if other:
        name = other[0]
        values = "" if name in DIGESTS else f" ({was.get(name)}, now {about.get(name)})"
        raise TrainingError(
            f"--resume: {file.parent} was trained with another {name.replace('_', ' ')}{values}. Give the same as "
            "then, or start again with --overwrite."
        )


def refuse_small_disk(model: PreTrainedModel, folder: Path, keep: int) -> None:
    """Raise unless the disk has room for the checkpoints, with the weights and two moments of each, and the model.

    Raises:
        TrainingError: there is less.
    """
    size = sum(x.numel() * x.element_size() for x in model.parameters())
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    wanted, free = size * (3 * (keep + 1) + 1), shutil.disk_usage(there).free
    if free < wanted:
        raise TrainingError(
            f"-o {folder}: the checkpoints and the model take {math.ceil(wanted / 2**20)} MiB, and there are "
            f"{free // 2**20} free. Make room, or give another folder."
        )
