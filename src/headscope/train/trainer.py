"""The transformers `Trainer` with our checkpoints, an order that resumes, and a stop at a loss that is not finite."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from headscope.compat.arguments import require_overrides
from headscope.errors import TrainingError
from headscope.train import checkpoint
from headscope.train.early_stop import EarlyStop, best_of
from headscope.train.interrupt import Interrupt
from headscope.train.randomness import RandomStates
from headscope.train.states import unpack
from headscope.train.tasks.task import IGNORED, Task


class Rounds(Sampler[int]):
    """All examples in a new order each round; the last batch is filled up from the beginning of the round.

    Every batch has the same size, so that any number of processes shares the same batches. The order depends on the
    seed and the round alone.

    Example:
        >>> rounds = Rounds(3, batch=2, seed=0)
        >>> first = list(rounds)
        >>> len(first), sorted(first[:3]), first[3] == first[0]
        (4, [0, 1, 2], True)
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self.count, self.batch, self.seed, self.round = count, batch, seed, 0

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch) * self.batch

    def __iter__(self) -> Iterator[int]:
        random = torch.Generator().manual_seed(self.seed + self.round)
        order = torch.randperm(self.count, generator=random).tolist()
        return iter((order * self.batch)[: len(self)])


class RoundBegins(TrainerCallback):
    """Tells the order which round it is; accelerate's own way to it ends at the first resumed round."""

    def __init__(self, rounds: Rounds) -> None:
        self.rounds = rounds

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A round begins, or goes on."""
        self.rounds.round = state.global_step // (len(self.rounds) // self.rounds.batch)


# Methods of the Trainer that ours stand in for: under another name they would never be called.
REPLACED = (
    *("_get_train_sampler", "_save_checkpoint", "_load_from_checkpoint", "_load_optimizer_and_scheduler"),
    *("_load_rng_state", "training_step", "compute_loss"),
)


class Finetuner(Trainer):
    """A `Trainer` whose checkpoints are safetensors and JSON, and that stops at the first loss that is not finite.

    Args:
        task: gives logits and targets.
        checkpoints: the folder of the checkpoints.
        batch: examples in one step, over all processes.
        keep: how many checkpoints stay.
        patience: evaluations without a better one after which the training ends.
        options: of the `Trainer`.
    """

    def __init__(
        self, *, task: Task, checkpoints: Path, batch: int, keep: int = 2, patience: int | None = None, **options: Any
    ) -> None:
        require_overrides(Trainer, REPLACED, "finetune")
        self.task, self.checkpoints, self.keep = task, checkpoints, keep
        self.rounds = Rounds(len(options["train_dataset"]), batch, options["args"].seed)
        self.random_states: list[Any] = []
        reduced: Any = self.reduced  # the Trainer gathers a tuple as well, which its types do not say
        super().__init__(
            compute_loss_func=self.loss_of,
            compute_metrics=metrics_of,
            preprocess_logits_for_metrics=reduced,
            **options,
        )
        self.add_callback(RoundBegins(self.rounds))
        self.interrupt, self.early_stop = Interrupt(), None
        if patience is not None:
            self.early_stop = EarlyStop(checkpoints, patience, writes=self.args.process_index == 0)
            self.add_callback(self.early_stop)
        self.add_callback(self.interrupt)

    def go(self) -> None:
        """Train to the end, from the last checkpoint where there is one; with patience to the best weights."""
        last = checkpoint.last(self.checkpoints)
        if last is None:
            self.train()
        else:
            self.go_on(extra_of(last))
        if self.early_stop is not None and not self.interrupt.stopped:
            self.accelerator.wait_for_everyone()
            self.early_stop.restore(self.body)

    def go_on(self, extra: dict[str, Any]) -> None:
        """Train on from the last checkpoint, unless it had come to its end before its last step."""
        if self.early_stop is not None and self.early_stop.over(extra["trainer"]["log_history"]):
            self.state = TrainerState(**extra["trainer"])
            return
        # The Trainer reads its own state from a file of that name; all else comes from the checkpoint itself.
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "trainer_state.json").write_text(json.dumps(extra["trainer"]), encoding="utf-8")
            self.random_states = extra["random"]
            self.train(resume_from_checkpoint=folder)

    def last_evaluation(self) -> dict[str, float]:
        """Step and loss of the evaluation of the weights: with patience the best, else one at the last step."""
        if self.early_stop is not None and (best := best_of(self.state.log_history)) is not None:
            return {"step": float(best.step), "loss": best.loss}
        done = [found for found in self.state.log_history if "eval_loss" in found]
        if not done or done[-1]["step"] != self.state.global_step:
            self.evaluate()
            done = [found for found in self.state.log_history if "eval_loss" in found]
        return {"step": float(self.state.global_step), "loss": float(done[-1]["eval_cross_entropy"])}

    def loss_of(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """The cross entropy, divided by how many labels the step has over all processes: however they are shared."""
        return cross_entropy(self.task.logits(outputs), self.task.targets(labels), num_items_in_batch)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        """The loss, and of the outputs the logits alone."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        return (loss, {"logits": self.task.logits(outputs)}) if return_outputs else loss

    def reduced(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each label the class with the largest logit, its loss, and the class that is meant: logits are large."""
        targets = self.task.targets(labels)
        flat = logits.flatten(0, -2).float(), targets.flatten()
        losses = torch.nn.functional.cross_entropy(*flat, reduction="none", ignore_index=IGNORED)
        return logits.argmax(-1), losses.view_as(targets), targets

    def _get_train_sampler(self, train_dataset: Any = None) -> Rounds:
        return self.rounds

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One step, as the Trainer does it.

        Raises:
            TrainingError: the loss is not finite.
        """
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"finetune: the loss is {loss.item()} at step {self.state.global_step + 1}; {self.way_out}"
            )
        return loss

    @property
    def body(self) -> torch.nn.Module:
        """The model, without what shares it out among processes."""
        assert isinstance(self.model, torch.nn.Module)
        return self.model

    @property
    def way_out(self) -> str:
        """What to do when training cannot go on."""
        last = checkpoint.last(self.checkpoints)
        there = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        return f"{there}. Train with a smaller --learning-rate, or look for numbers that are none in the model."

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint; the first process does, with the random states of all."""
        if not all(bool(torch.isfinite(x).all()) for x in self.body.parameters()):
            raise TrainingError(
                f"finetune: weights are no numbers any more at step {self.state.global_step}; {self.way_out}"
            )
        mine = RandomStates.now(self.body).state()
        states: list[Any] = [mine] * self.args.world_size
        if self.args.world_size > 1:
            torch.distributed.all_gather_object(states, mine)
        if self.args.should_save:
            trainer = json.loads(json.dumps(dataclasses.asdict(self.state)))
            extra = {"trainer": trainer, "random": states}
            checkpoint.save(
                self.checkpoints, self.state.global_step, self.body, self._parts(), extra=extra, keep=self.keep
            )
        self.accelerator.wait_for_everyone()

    def _parts(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, "scheduler": self.lr_scheduler}

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The weights come with the rest, when the optimizer is there."""

    def _load_optimizer_and_scheduler(self, checkpoint_folder: str | None) -> None:
        if checkpoint_folder is not None:
            checkpoint.load(self.checkpoints, self.body, self._parts())

    def _load_rng_state(self, checkpoint_folder: str | None) -> None:
        """Every process goes on with its own random numbers; another number of processes begins with new ones."""
        if checkpoint_folder is not None and len(self.random_states) == self.args.world_size:
            RandomStates.of(self.random_states[self.args.process_index]).restore()


def extra_of(path: Path) -> dict[str, Any]:
    """What the Trainer put into a checkpoint besides the states of its parts."""
    content = checkpoint.read(path)
    found: dict[str, Any] = unpack(content.extra, checkpoint.tensors_of(path / checkpoint.STATE, content.files))
    return found


def cross_entropy(logits: Tensor, targets: Tensor, count: Tensor | int | None) -> Tensor:
    """The sum of the cross entropies of all targets, divided by a count; by their own unless given."""
    total = torch.nn.functional.cross_entropy(
        logits.flatten(0, -2).float(), targets.flatten(), reduction="sum", ignore_index=IGNORED
    )
    loss: Tensor = total / ((targets != IGNORED).sum() if count is None else count)
    return loss


def metrics_of(found: EvalPrediction) -> dict[str, float]:
    """The mean loss of the targets, and the share that has the largest logit.

    The Trainer's own loss is a mean over batches, which depends on how many processes share them.
    """
    said, losses, targets = (np.asarray(x) for x in found.predictions)
    counted = targets != IGNORED
    return {
        "cross_entropy": float(losses[counted].mean()),
        "accuracy": float((said == targets)[counted].mean()),
    }
