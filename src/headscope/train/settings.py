"""The words of a fine-tuning: the same ones in Python and on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from headscope.errors import TrainingError
from headscope.train.new_model import is_new

TaskName = Literal["classify", "tag", "answer", "write", "summarise", "translate"]

Schedule = Literal["linear", "cosine", "constant"]

# The smallest and the largest value of each number, as the command line has them; whole numbers are ints.
BOUNDS: dict[str, tuple[float, float]] = {
    "epochs": (1, 10**6),
    "batch_size": (1, 10**6),
    "learning_rate": (0.0, 1e3),
    "max_length": (3, 10**9),
    "max_target": (2, 10**6),
    "beams": (1, 10**3),
    "eval_share": (0.0, 1.0),
    "accumulate": (1, 10**6),
    "lora": (1, 10**5),
    "patience": (1, 10**6),
    "warmup": (0.0, 0.9),
    "save_every": (1, 10**9),
    "dropout": (0.0, 0.9),
    "seed": (0, 2**32 - 1),
}

OPTIONAL = ("learning_rate", "max_length", "lora", "patience")
# The learning rates of a model that is trained already and of a new one, unless one is given.
TRAINED, NEW = 5e-5, 2e-3


class Words(TypedDict, total=False):
    """The keyword arguments of `headscope.train.finetune`; each is the option of the command with hyphens in it."""

    model: str | None
    task: TaskName | None
    text_column: str | None
    label_column: str | None
    question_column: str | None
    context_column: str | None
    answer_column: str | None
    start_column: str | None
    source_column: str | None
    target_column: str | None
    source_language: str | None
    target_language: str | None
    prefix: str | None
    eval_data: str | Path | None
    encoding: str | None
    eval_share: float
    epochs: int
    batch_size: int
    learning_rate: float | None
    max_length: int | None
    max_target: int
    beams: int
    accumulate: int
    bf16: bool
    gradient_checkpointing: bool
    lora: int | None
    patience: int | None
    schedule: Schedule
    warmup: float
    attention: str | None
    save_every: int
    dropout: float
    seed: int
    resume: bool
    overwrite: bool


@dataclass(frozen=True)
class Settings:
    """What is asked for.

    Attributes:
        data: the table of examples.
        output: the folder of what comes of it.
        model: a folder, a name on the Hub, or `new:decoder,layers=2,…`; None for the packaged model.
        task: what to train for; by the columns unless given.
        text_column, …: the names of the columns; the usual ones unless given.
        source_language, target_language: codes of a multilingual tokenizer, or those in the config of a T5.
        prefix: stands before every source; what the config names for the task unless given.
        encoding: of the characters of the data; UTF-8, or by its byte order mark, unless given.
        eval_data: a file of its own to evaluate with; else a share of the data.
        batch_size: examples in one step, over all processes together.
        learning_rate: at its highest; 5e-5 unless given, and 2e-3 for a new model.
        max_length: texts are cut at so many tokens; by what the model takes unless given.
        max_target: tokens that are written at most.
        beams: beams of the beam search that is measured beside the greedy texts.
        accumulate: parts that a step is computed in, one after the other, to need less memory.
        bf16: compute in bfloat16 where it is safe (autocast); weights stay as they are.
        gradient_checkpointing: compute activations again in the backward pass, to need less memory.
        lora: the rank of the adapters that are trained instead of the weights.
        patience: evaluations without a smaller loss after which the training ends with its best weights.
        schedule, warmup: how the learning rate falls, after it has risen over this share of the steps.
        attention: how transformers computes attention: "headscope", "sdpa", …; by the task and the model unless given.
        save_every: steps between two checkpoints.
        dropout: while training; with 0 the same run on any number of processes gives the same losses.
    """

    data: Path
    output: Path
    model: str | None = None
    task: TaskName | None = None
    text_column: str | None = None
    label_column: str | None = None
    question_column: str | None = None
    context_column: str | None = None
    answer_column: str | None = None
    start_column: str | None = None
    source_column: str | None = None
    target_column: str | None = None
    source_language: str | None = None
    target_language: str | None = None
    prefix: str | None = None
    eval_data: Path | None = None
    encoding: str | None = None
    eval_share: float = 0.2
    epochs: int = 3
    batch_size: int = 32
    learning_rate: float | None = None
    max_length: int | None = None
    max_target: int = 128
    beams: int = 4
    accumulate: int = 1
    bf16: bool = False
    gradient_checkpointing: bool = False
    lora: int | None = None
    patience: int | None = None
    schedule: Schedule = "linear"
    warmup: float = 0.06
    attention: str | None = None
    save_every: int = 200
    dropout: float = 0.0
    seed: int = 0
    resume: bool = False
    overwrite: bool = False

    @property
    def rate(self) -> float:
        """The learning rate that was given, or that of the kind of model."""
        usual = NEW if is_new(self.model) else TRAINED
        return usual if self.learning_rate is None else self.learning_rate

    def columns(self) -> dict[str, str | None]:
        """The named columns by their role."""
        return {name.removesuffix("_column"): value for name, value in vars(self).items() if name.endswith("_column")}


def check(words: Mapping[str, Any]) -> None:
    """See that every number among the words of a fine-tuning is one, and within its bounds.

    Raises:
        TrainingError: it is not; names the option.

    Example:
        >>> check({"epochs": 3, "max_length": None})
    """
    for name, (low, high) in BOUNDS.items():
        value = words.get(name)
        if value is None and (name not in words or name in OPTIONAL):
            continue
        kinds = (int,) if isinstance(low, int) else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
            number = "a whole number" if isinstance(low, int) else "a number"
            raise TrainingError(
                f"--{name.replace('_', '-')}: {value!r} was given. Give {number} from {low:g} to {high:g}."
            )
    schedules = get_args(Schedule)
    if words.get("schedule", schedules[0]) not in schedules:
        raise TrainingError(f"--schedule: {words['schedule']!r} was given. Give {', '.join(schedules)}.")
