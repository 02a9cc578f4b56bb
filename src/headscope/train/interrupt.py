"""Ctrl-C: the step is done to its end, a checkpoint is written, and the training stops; a second one stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt(TrainerCallback):
    """Turns the first SIGINT or SIGTERM into a checkpoint and the end of the training.

    Of several processes all stop at the same step as soon as one of them was asked to.

    Attributes:
        asked: whether somebody asked to stop.
        stopped: whether the training ended for it.
    """

    def __init__(self) -> None:
        self.asked = self.stopped = False
        self.before: dict[int, Any] = {}

    def ask(self, number: int, frame: FrameType | None) -> None:
        """The handler: the next signal of the kind does what it did before."""
        self.asked = True
        self.restore()

    def restore(self) -> None:
        """Put the handlers back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Wait for signals, where this thread may and the process does not ignore them."""
        if threading.current_thread() is threading.main_thread():
            handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self.before = {number: signal.signal(number, self.ask) for number in handled}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop after this step, on all processes at once."""
        asked = self.asked
        if args.world_size > 1:
            shared = torch.tensor(float(asked), device=args.device)
            dist.all_reduce(shared, dist.ReduceOp.MAX)
            asked = bool(shared)
        if asked and state.global_step < state.max_steps:
            self.stopped = control.should_save = control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Who asked to stop does not wait for an evaluation."""
        if self.stopped:
            control.should_evaluate = control.should_save = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Signals do what they did before."""
        self.restore()
