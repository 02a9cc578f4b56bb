"""Fine-tune a pretrained model on a table of texts and labels, and report what its heads learned."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headscope.errors import TrainingError
from headscope.files.bounded import read_bounded
from headscope.files.digests import differences
from headscope.files.places import made_folder
from headscope.files.replace_file import write as write_whole
from headscope.hf.identity import identity_of
from headscope.train import data
from headscope.train.data import Examples, Task
from headscope.train.features import Trained, features, prepare, room
from headscope.train.remove_training import remove_training

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from headscope.train.trainer import Finetuner

ABOUT, REPORT, CHECKPOINTS, HEADS = "finetune.json", "report.html", "checkpoints", "heads"
SCORES, TABLE = "scores.json", "heads.csv"
# The format of ABOUT, and the most bytes it may have; which of its entries are digests.
FORMAT, LARGEST, DIGESTS = 1, 2**20, ("data", "evaluation data", "weights", "tokenizer")
KEEP = 2
# A head is looked at so many times over a training.
LOOKS = 10


@dataclass(frozen=True)
class Settings:
    """What is asked for.

    Attributes:
        model: a folder or a name on the Hub; None for the packaged model.
        encoding: of the characters of the data; UTF-8, or by its byte order mark, unless given.
        eval_data: a file of its own to evaluate with; else a share of the data.
        batch_size: examples in one step, over all processes together.
        max_length: texts are cut at so many tokens; by what the model takes unless given.
        save_every: steps between two checkpoints.
        dropout: while training; with 0 the same run on any number of processes gives the same losses.
    """

    data: Path
    folder: Path
    model: str | None = None
    task: Task | None = None
    text_column: str | None = None
    label_column: str | None = None
    eval_data: Path | None = None
    encoding: str | None = None
    eval_share: float = 0.2
    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 5e-5
    max_length: int | None = None
    save_every: int = 200
    dropout: float = 0.0
    seed: int = 0
    resume: bool = False
    overwrite: bool = False


@dataclass
class Finetuned:
    """What came of it.

    Attributes:
        scores: of the evaluation: loss, accuracy, macro_f1, most_frequent.
        moved: for each head how much of its attention moved, as (layer, head, share), the most first.
    """

    scores: dict[str, float]
    report: Path
    moved: list[tuple[int, int, float]]


def finetune(settings: Settings, say: Callable[[str], None] = lambda line: None) -> Finetuned | None:
    """Train, evaluate, save the model and write the report; None in all processes of a torchrun but the first.

    Args:
        say: takes lines about how it goes.

    Raises:
        TrainingError: data or a folder that cannot be used, a loss that is not finite, a full disk.
        ModelError: a model that cannot be loaded, or not for this task.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if settings.batch_size % world:
        raise TrainingError(
            f"--batch-size {settings.batch_size}: {world} processes share it; give a multiple of {world}."
        )
    train, held = read(settings)
    classes = data.check(train, held)
    tell = say if rank == 0 else lambda line: None
    for name, part in (("training", train), ("evaluation", held)):
        skipped = f"; {part.skipped} empty rows skipped" if part.skipped else ""
        tell(f"{name}: {len(part)} examples of {len(part.classes())} labels{skipped}")
    trained = prepare(settings.model, train.task, classes, settings.dropout, settings.seed)
    about = described(settings, trained, train, held)
    if rank == 0:
        room(trained.model, settings.folder, KEEP)
        ready(settings, about)
    trainer = trainer_of(settings, trained, train, held, classes, tell)
    trainer.accelerator.wait_for_everyone()
    trainer.go()
    scores = trainer.last_scores()
    return finish(settings, trainer, trained, held, scores) if rank == 0 else None


def read(settings: Settings) -> tuple[Examples, Examples]:
    """The examples to train with and those to evaluate with."""
    columns = settings.text_column, settings.label_column, settings.encoding
    whole = data.read(settings.data, settings.task, *columns)
    if settings.eval_data is None:
        return data.split(whole, settings.eval_share, settings.seed)
    return whole, data.read(settings.eval_data, whole.task, *columns)


def described(settings: Settings, trained: Trained, train: Examples, held: Examples) -> dict[str, Any]:
    """What makes a run this one; another run is not resumed from its checkpoints."""
    about = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(settings).items()
        if name not in ("folder", "resume", "overwrite", "data", "eval_data")
    }
    digests = {"data": train.digest, "evaluation data": held.digest, **identity_of(trained.base)}
    del about["model"]  # it is what it holds, whatever its folder is called
    return {"format": FORMAT, **about, "task": train.task, **digests}


def ready(settings: Settings, about: dict[str, Any]) -> None:
    """Make the output folder, or see that it is of this very run.

    Raises:
        TrainingError: it holds something, and neither --resume nor --overwrite was given, or it is of another run.
    """
    folder, file = settings.folder, settings.folder / ABOUT
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
        same(file, about)
        return
    made_folder("-o", folder)
    write_whole("finetune", file, json.dumps(about, indent=1).encode())


def same(file: Path, about: dict[str, Any]) -> None:
    """Raise unless the training in a folder was asked for in the same words."""
    try:
        was = json.loads(read_bounded(file, LARGEST, TrainingError))
    except ValueError:
        was = None
    if not isinstance(was, dict):
        raise TrainingError(f"{file}: this is damaged. Give another folder, or remove this one yourself.")
    other = differences(was, about)
    if other:
        name = other[0]
        values = "" if name in DIGESTS else f" ({was.get(name)}, now {about[name]})"
        raise TrainingError(
            f"--resume: {file.parent} was trained with another {name.replace('_', ' ')}{values}. Give the same as "
            "then, or start again with --overwrite."
        )


def trainer_of(
    settings: Settings,
    trained: Trained,
    train: Examples,
    held: Examples,
    classes: list[str],
    tell: Callable[[str], None],
) -> Finetuner:
    """The Trainer with all that it needs."""
    from transformers import (
        DataCollatorForTokenClassification,
        DataCollatorWithPadding,
        PrinterCallback,
    )

    from headscope.train.display import Telling
    from headscope.train.trainer import Finetuner

    given = [features(part, trained.base, classes, settings.max_length) for part in (train, held)]
    cut = sum(count for _, count in given)
    if cut:
        tell(f"{cut} texts are longer than the model or --max-length takes, and are cut at their end")
    collators = {"classify": DataCollatorWithPadding, "tag": DataCollatorForTokenClassification}
    trainer = Finetuner(
        checkpoints=settings.folder / CHECKPOINTS,
        batch=settings.batch_size,
        keep=KEEP,
        model=trained.model,
        args=arguments_of(settings, len(train)),
        data_collator=collators[train.task](trained.base.tokenizer),
        train_dataset=given[0][0],
        eval_dataset=given[1][0],
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.args.process_index == 0:
        trainer.add_callback(Telling(tell))
        trainer.add_callback(watching(settings, trainer, trained, held).callback())
    return trainer


def arguments_of(settings: Settings, count: int) -> TrainingArguments:
    """The settings of the Trainer, for so many examples to train with."""
    import torch
    from transformers import TrainingArguments

    world = int(os.environ.get("WORLD_SIZE", "1"))
    # Without this word accelerate starts the processes but lets each of them train alone.
    on_cpu = not torch.accelerator.is_available()
    return TrainingArguments(
        output_dir=str(settings.folder),
        per_device_train_batch_size=settings.batch_size // world,
        per_device_eval_batch_size=max(8, settings.batch_size // world),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        warmup_steps=0.06,
        weight_decay=0.01,
        seed=settings.seed,
        eval_strategy="epoch",
        save_strategy="steps",
        save_steps=settings.save_every,
        logging_steps=max(1, min(10, count // settings.batch_size // 4)),
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and world > 1 else None,
        log_level="error",
    )


def watching(settings: Settings, trainer: Finetuner, trained: Trained, held: Examples) -> Any:
    """A watch on the heads, with one text of the evaluation."""
    from headscope.hf.text import encode
    from headscope.train import checkpoint
    from headscope.train.report import probes
    from headscope.train.watch import Watch

    encoded = encode(trained.base, probes(held, 1)[0].text)
    last = checkpoint.last(settings.folder / CHECKPOINTS)
    steps = settings.epochs * len(trainer.rounds) // trainer.rounds.batch
    start = 0 if last is None else checkpoint.step_of(last)
    folder = settings.folder / HEADS
    body, every = trained.model.base_model, max(1, steps // LOOKS)
    return Watch(body, encoded.inputs, every=every, to=folder, tokens=encoded.axis, start=start)


def finish(
    settings: Settings, trainer: Finetuner, trained: Trained, held: Examples, scores: dict[str, float]
) -> Finetuned:
    """Save the model, look at the heads before and after, and write the report."""
    from headscope.train.report import write

    for name, value in trained.dropout.items():
        setattr(trained.model.config, name, value)
    trained.model.save_pretrained(settings.folder)
    trained.base.tokenizer.save_pretrained(settings.folder)
    trained.model.train(False).cpu()
    write_whole("finetune", settings.folder / SCORES, json.dumps(scores, indent=1).encode())
    title = f"{trained.base.name} · {settings.data.name}"
    table = write(settings.folder / REPORT, title, trained, held, scores, trainer.state.log_history)
    table.save(settings.folder / TABLE)
    moved = [(int(row["layer"]), int(row["head"]), float(row["moved"])) for row in table]
    return Finetuned(scores, settings.folder / REPORT, moved)
