"""A watch as a callback of the transformers `Trainer`."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


@runtime_checkable
class Watching(Protocol):
    """A watch, as far as the callback needs to know it."""

    def begin(self, step: int, loss: float | None) -> None:
        """Look before training, which goes on with a loss if it was stopped."""

    def reached(self, step: int, *, last: bool) -> None:
        """A step is done."""

    def add_loss(self, loss: float) -> None:
        """A loss is known."""

    def close(self) -> None:
        """Write what is left."""


class WatchCallback(TrainerCallback):
    """Tells a watch what the Trainer does; made by `Watch.callback`."""

    def __init__(self, watch: Watching) -> None:
        self.watch = watch

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look before the first step, or where a resumed training goes on."""
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        self.watch.begin(state.global_step, float(losses[-1]) if losses else None)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A step is done. The last one is looked at here, since the Trainer may load its best checkpoint afterwards."""
        last = control.should_training_stop or state.global_step >= state.max_steps
        self.watch.reached(state.global_step, last=last)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """The Trainer's loss, for the next rows and for the curve."""
        if logs is not None and "loss" in logs:
            self.watch.add_loss(float(logs["loss"]))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write what is left."""
        self.watch.close()
