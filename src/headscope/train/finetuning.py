"""Fine-tune a model on a table of examples, and report what its heads learned."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from headscope.errors import TrainingError
from headscope.files.library_files import library_files
from headscope.files.places import check_folder, path_of
from headscope.files.replace_file import write
from headscope.train import checkpoint
from headscope.train.data import Examples
from headscope.train.data import read as read_examples
from headscope.train.languages import refuse_languages
from headscope.train.prepare import Prepared, prepare, with_adapter
from headscope.train.processes import in_shares
from headscope.train.run_folder import (
    CHECKPOINTS,
    HEADS,
    REPORT,
    SCORES,
    TABLE,
    described,
    make_ready,
    refuse_small_disk,
)
from headscope.train.settings import Settings, Words, check
from headscope.train.split import split
from headscope.train.tasks.listing import task_named
from headscope.train.tasks.task import Features, Task

if TYPE_CHECKING:
    from headscope.train.trainer import Finetuner

# Checkpoints that stay, and how often a head is looked at over a training.
KEEP, LOOKS = 2, 10
Say = Callable[[str], None]


@dataclass
class Finetuned:
    """What came of a fine-tuning.

    Attributes:
        task: what was trained for.
        folder: the model and all else.
        scores: of the evaluation: step, loss, the metrics of the task and those of its baseline.
        report: the page that shows it.
        moved: for each head how much of its attention moved, as (layer, head, share), the most first.
    """

    task: Task
    folder: Path
    scores: dict[str, float]
    report: Path
    moved: list[tuple[int, int, float]]


def finetune(
    data: str | Path, output: str | Path = "finetuned", *, say: Say | None = None, **words: Unpack[Words]
) -> Finetuned | None:
    """Train a model on a table of examples, evaluate it, save it and write a report of what its heads learned.

    Args:
        data: a .csv, .tsv, .jsonl or .parquet file.
        output: the folder of what comes of it.
        say: is called with lines about how it goes.
        words: the options of `headscope finetune`, as in task="tag", batch_size=16.

    Returns:
        Scores, report and moved heads; None in all processes of a torchrun but the first.

    Raises:
        TrainingError: data or a folder that cannot be used, a loss that is not finite, a full disk, a word that is no
            option.
        ModelError: a model that cannot be loaded, or does not fit the task.
        MissingExtra: a library that the task needs is not installed.
        KeyboardInterrupt: somebody pressed Ctrl-C; there is a checkpoint to go on from.
    """
    known = {field.name for field in fields(Settings)}
    unknown = [name for name in words if name not in known]
    if unknown:
        options = ", ".join(sorted(known - {"data", "output"}))
        raise TrainingError(f"finetune: there is no option {unknown[0]!r}. The options are {options}.")
    given: dict[str, Any] = dict(words)
    check(given)
    if given.get("eval_data") is not None:
        given["eval_data"] = path_of("--eval-data", str(given["eval_data"]))
    folder = check_folder("-o", path_of("-o", str(output)), parents=True)
    return run(Settings(path_of("--data", str(data)), folder, **given), say or (lambda line: None))


def run(settings: Settings, say: Say) -> Finetuned | None:
    """Train as the settings say; raises what `finetune` raises."""
    if settings.resume and settings.overwrite:
        raise TrainingError("finetune: --resume goes on and --overwrite starts again. Give one of the two.")
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    shares = world * settings.accumulate
    if settings.batch_size % shares:
        raise TrainingError(
            f"--batch-size {settings.batch_size}: {world} processes share it, in {settings.accumulate} parts each; "
            f"give a multiple of {shares}."
        )
    train, held = read(settings)
    refuse_languages(train.task, settings)
    train.task.require(train.rows)
    train.task.check(train.rows, held.rows)
    tell: Say = say if rank == 0 else lambda line: None
    for name, part in (("training", train), ("evaluation", held)):
        tell(f"{name}: {counted(part)}")
    prepared = with_adapter(prepare(train.task, train.rows, settings), settings)
    train, held = train.prefixed(prepared.prefix), held.prefixed(prepared.prefix)
    about = described(settings, prepared, train, held)
    tools = prepared.tools(settings)
    made = [part.task.features(part.rows, tools) for part in (train, held)]
    cut = sum(features.cut for features in made)
    if cut:
        tell(f"{cut} texts are longer than the model or --max-length takes, and are cut at their end")
    if rank == 0:
        refuse_small_disk(prepared.model, settings.output, KEEP)
        make_ready(settings, about)
    trainer = trainer_of(settings, prepared, train.task.collator(tools), made, held, tell)
    trainer.accelerator.wait_for_everyone()
    trainer.go()
    if trainer.interrupt.stopped:
        tell(
            f"stopped at step {trainer.state.global_step} of {trainer.state.max_steps}; its checkpoint is "
            f"{checkpoint.last(settings.output / CHECKPOINTS)}. Go on with the same command and --resume"
        )
        raise KeyboardInterrupt
    evaluated = trainer.last_evaluation()
    prepared.merge()
    prepared.model.train(False)
    tools = prepared.tools(settings)  # an adapter is merged now
    predictions = in_shares(held.rows, lambda rows: held.task.predict(rows, tools))
    if rank != 0:
        return None
    prepared.model.cpu()
    return finish(settings, trainer.state.log_history, prepared, train, held, predictions, evaluated)


def read(settings: Settings) -> tuple[Examples, Examples]:
    """The examples to train with and those to evaluate with."""
    task = None if settings.task is None else task_named(settings.task)
    examples = read_examples(settings.data, task, settings.columns(), settings.encoding)
    if settings.eval_data is None:
        return split(examples, settings.eval_share, settings.seed)
    held = read_examples(settings.eval_data, examples.task, settings.columns(), settings.encoding, "--eval-data")
    return examples, held


def counted(part: Examples) -> str:
    """How many examples there are, of how many labels, and what was skipped."""
    labels = {label for example in part.rows for label in part.task.labels(example)}
    of = f" of {len(labels)} labels" if labels else ""
    skipped = f"; {len(part.skipped)} empty rows skipped, the first in line {part.skipped[0]}" if part.skipped else ""
    return f"{len(part)} examples{of}{skipped}"


def trainer_of(
    settings: Settings, prepared: Prepared, collate: Callable[..., Any], made: list[Features], held: Examples, tell: Say
) -> Finetuner:
    """The Trainer with all that it needs; `made` are the features to train and to evaluate with."""
    from transformers import PrinterCallback

    from headscope.train.display import Display
    from headscope.train.trainer import Finetuner
    from headscope.train.trainer_options import options_of

    trainer = Finetuner(
        task=held.task,
        checkpoints=settings.output / CHECKPOINTS,
        batch=settings.batch_size,
        keep=KEEP,
        patience=settings.patience,
        model=prepared.model,
        args=options_of(settings, len(made[0].rows)),
        data_collator=collate,
        train_dataset=made[0].rows,
        eval_dataset=made[1].rows,
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.args.process_index == 0:
        trainer.add_callback(Display(tell, per_token=held.task.per_token))
        trainer.add_callback(watching(settings, trainer, prepared, held).callback())
    return trainer


def watching(settings: Settings, trainer: Finetuner, prepared: Prepared, held: Examples) -> Any:
    """A watch on the heads, with one example of the evaluation."""
    from headscope.hf.text import encode
    from headscope.train.report import probes
    from headscope.train.watch import Watch

    loaded = prepared.loaded()
    probe = probes(held, 1)[0]
    encoded = encode(loaded, probe.text, probe.pair)
    last = checkpoint.last(settings.output / CHECKPOINTS)
    steps = settings.epochs * len(trainer.rounds) // trainer.rounds.batch
    start = 0 if last is None else checkpoint.step_of(last)

    def tokens(recording: Any) -> None:
        recording.tokens(encoded.axis, side=None if encoded.decoder is None else "encoder")
        if encoded.decoder is not None:
            recording.tokens(encoded.decoder, side="decoder")

    folder = settings.output / HEADS
    return Watch(loaded.model, encoded.inputs, every=max(1, steps // LOOKS), to=folder, tokens=tokens, start=start)


def finish(
    settings: Settings,
    history: Sequence[dict[str, Any]],
    prepared: Prepared,
    train: Examples,
    held: Examples,
    predictions: Sequence[Any],
    evaluated: dict[str, float],
) -> Finetuned:
    """Measure the predictions, save the model, look at the heads before and after, and write the report."""
    from headscope.train.report import Outcome, write_report

    baseline = held.task.baseline(train.rows, held.rows, prepared.tools(settings))
    scores = evaluated | held.task.scores(predictions, held.rows) | baseline
    for name, value in prepared.overridden.items():
        setattr(prepared.model.config, name, value)
    with library_files("finetune", settings.output) as beside:
        prepared.model.save_pretrained(beside)
        prepared.tokenizer.save_pretrained(beside)
    write("finetune", settings.output / SCORES, json.dumps(scores, indent=1).encode())
    before = prepare(train.task, train.rows, settings, prepared.tokenizer)
    title = f"{prepared.name} · {settings.data.name}"
    outcome = Outcome(held, predictions, before, prepared, scores, history)
    table = write_report(settings.output / REPORT, title, outcome, settings)
    table.save(settings.output / TABLE)
    moved = [(int(row["layer"]), int(row["head"]), float(row["moved"])) for row in table]
    return Finetuned(held.task, settings.output, scores, settings.output / REPORT, moved)
