"""`--patience n`: the training ends where n evaluations in a row bring nothing, and the best weights are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from headscope.errors import TrainingError
from headscope.files import system
from headscope.files.replace_file import write

BEST = "best.safetensors"


class Best(NamedTuple):
    """The best evaluation of a training, and how many came after it."""

    step: int
    loss: float
    since: int


def best_of(history: Sequence[Mapping[str, Any]]) -> Best | None:
    """The evaluation with the smallest loss, the first of equals; None before the first one.

    Example:
        >>> best_of([{"step": 5 * i, "eval_cross_entropy": loss} for i, loss in enumerate((3.0, 1.0, 2.0))])
        Best(step=5, loss=1.0, since=1)
    """
    done = [(float(row["eval_cross_entropy"]), int(row["step"])) for row in history if "eval_cross_entropy" in row]
    if not done:
        return None
    # An evaluation without a loss is worse than any other; min() would take it for the best.
    losses = [math.inf if math.isnan(loss) else loss for loss, _ in done]
    place = losses.index(min(losses))
    return Best(done[place][1], losses[place], len(done) - 1 - place)


class EarlyStop(TrainerCallback):
    """Keeps the weights of the best evaluation, and stops the training when it is too long ago.

    What it knows is in the Trainer's history, so that a resumed training stops where it would have.

    Args:
        folder: of the best weights.
        patience: evaluations without a better one after which the training ends.
        writes: whether this process writes.
    """

    def __init__(self, folder: Path, patience: int, *, writes: bool) -> None:
        self.file, self.patience, self.writes = folder / BEST, patience, writes

    def over(self, history: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the training ends here."""
        best = best_of(history)
        return best is not None and best.since >= self.patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep the weights, or stop."""
        best = best_of(state.log_history)
        if best is not None and best.since == 0 and self.writes:
            system.make_folders(self.file.parent)
            model: nn.Module = kwargs["model"]
            tensors = {name: x.detach().cpu().contiguous().clone() for name, x in model.state_dict().items()}
            write("finetune", self.file, save(tensors))
        if self.over(state.log_history):
            control.should_training_stop = control.should_save = True

    def restore(self, model: nn.Module) -> None:
        """Give a model the best weights.

        Raises:
            TrainingError: their file is damaged or gone.
        """
        try:
            model.load_state_dict(load_file(self.file))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise TrainingError(
                f"finetune: the best weights, {self.file}, cannot be read ({error}). Train again with --overwrite."
            ) from error
