"""The transformers `Trainer` with our checkpoints, an order that resumes, and a stop at a loss that is not finite."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
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
from headscope.train.features import LEFT_OUT
from headscope.train.randomness import RandomStates
from headscope.train.states import unpack


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
    *("_load_rng_state", "training_step"),
)


class Finetuner(Trainer):
    """A `Trainer` whose checkpoints are safetensors and JSON, and that stops at the first loss that is not finite.

    Args:
        checkpoints: the folder of the checkpoints.
        batch: examples in one step, over all processes.
        keep: how many checkpoints stay.
    """

    def __init__(self, *, checkpoints: Path, batch: int, keep: int = 2, **given: Any) -> None:
        require_overrides(Trainer, REPLACED, "finetune")
        self.checkpoints, self.keep = checkpoints, keep
        self.rounds = Rounds(len(given["train_dataset"]), batch, given["args"].seed)
        self.random_states: list[Any] = []
        best: Any = best_of  # the Trainer gathers a pair as well, which its types do not say
        super().__init__(
            compute_loss_func=loss_of,
            compute_metrics=metrics_of,
            preprocess_logits_for_metrics=best,
            **given,
        )
        self.add_callback(RoundBegins(self.rounds))

    def go(self) -> dict[str, float]:
        """Train to the end, from the last checkpoint where there is one; gives the loss of the training."""
        last = checkpoint.last(self.checkpoints)
        if last is None:
            return dict(self.train().metrics)
        # The Trainer reads its own state from a file of that name; all else comes from the checkpoint itself.
        with tempfile.TemporaryDirectory() as folder:
            extra = extra_of(last)
            Path(folder, "trainer_state.json").write_text(json.dumps(extra["trainer"]), encoding="utf-8")
            self.random_states = extra["random"]
            return dict(self.train(resume_from_checkpoint=folder).metrics)

    def last_scores(self) -> dict[str, float]:
        """The evaluation at the last step: the one that ended the training, or one that is made now."""
        done = [found for found in self.state.log_history if "eval_loss" in found]
        if not done or done[-1]["step"] != self.state.global_step:
            self.evaluate()
            done = [found for found in self.state.log_history if "eval_loss" in found]
        names = ("accuracy", "macro_f1", "most_frequent")
        found = {"step": float(self.state.global_step), "loss": float(done[-1]["eval_cross_entropy"])}
        return found | {name: float(done[-1][f"eval_{name}"]) for name in names}

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


def loss_of(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """The cross entropy, divided by how many labels the step has over all processes: however they are shared out."""
    logits = outputs["logits"].flatten(0, -2).float()
    total = torch.nn.functional.cross_entropy(logits, labels.flatten(), reduction="sum", ignore_index=LEFT_OUT)
    count = (labels != LEFT_OUT).sum() if num_items_in_batch is None else num_items_in_batch
    loss: Tensor = total / count
    return loss


def best_of(logits: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The class with the largest logit and the loss of each label, so that no logits are gathered."""
    given: Tensor = logits[0] if isinstance(logits, tuple) else logits
    flat = given.flatten(0, -2).float(), labels.flatten()
    losses = torch.nn.functional.cross_entropy(*flat, reduction="none", ignore_index=LEFT_OUT)
    return given.argmax(-1), losses.view_as(labels)


def metrics_of(found: EvalPrediction) -> dict[str, float]:
    """The mean loss of the labels, accuracy, macro-F1, and the share of the most frequent label.

    The Trainer's own loss is a mean over batches, which depends on how many processes share them.
    """
    meant = np.asarray(found.label_ids)
    said, losses = (np.asarray(x)[meant != LEFT_OUT] for x in found.predictions)
    return {"cross_entropy": float(losses.mean()), **scores(said, meant[meant != LEFT_OUT])}


def scores(said: Sequence[int] | np.ndarray, meant: Sequence[int] | np.ndarray) -> dict[str, float]:
    """Accuracy, the mean over the labels of their F1, and the share of the most frequent label.

    Example:
        >>> {name: round(score, 2) for name, score in scores([0, 1, 1, 1], [0, 0, 1, 1]).items()}
        {'accuracy': 0.75, 'macro_f1': 0.73, 'most_frequent': 0.5}
    """
    said, meant = np.asarray(said), np.asarray(meant)
    f1 = []
    for label in np.unique(meant):
        hits = np.sum((said == label) & (meant == label))
        f1.append(2 * hits / (np.sum(said == label) + np.sum(meant == label)))
    return {
        "accuracy": float(np.mean(said == meant)),
        "macro_f1": float(np.mean(f1)),
        "most_frequent": float(np.unique(meant, return_counts=True)[1].max() / len(meant)),
    }
