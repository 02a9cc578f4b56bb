"""How a training goes: a bar on a terminal, and a line for each evaluation."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# The largest loss whose perplexity is a float.
MOST = 700.0


class Display(TrainerCallback):
    """Says each evaluation in one line; on a terminal's standard error a bar shows where the training stands.

    Args:
        say: takes the lines.
        per_token: whether the loss is that of a token of text, so that its perplexity is shown as well.
    """

    def __init__(self, say: Callable[[str], None], *, per_token: bool = False) -> None:
        self.say, self.per_token, self.loss = say, per_token, float("nan")
        self.bar: Any = None
        self.task: Any = None
        self.begun = time.monotonic(), 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say where it goes on, and show the bar."""
        self.begun = time.monotonic(), state.global_step
        if state.global_step:
            self.say(f"going on from step {state.global_step} of {state.max_steps}")
            self.loss = next((row["loss"] for row in reversed(state.log_history) if "loss" in row), self.loss)
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            text = TextColumn("{task.description}", markup=False)
            left = TimeRemainingColumn(compact=True, elapsed_when_finished=True)
            columns = text, BarColumn(), MofNCompleteColumn(), left
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task("training", total=state.max_steps, completed=state.global_step)
            self.bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step, description=f"training: loss {self.loss:.3f}")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember the loss."""
        self.loss = float((logs or {}).get("loss", self.loss))

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Say what was found."""
        found = {"eval_cross_entropy": float("nan"), "eval_accuracy": float("nan"), **(metrics or {})}
        loss = found["eval_cross_entropy"]
        perplexity = f"perplexity {math.exp(min(loss, MOST)):.4g} per token, " if self.per_token else ""
        self.say(
            f"step {state.global_step} of {state.max_steps}: training loss {self.loss:.4f}, evaluation loss "
            f"{loss:.4f}, {perplexity}accuracy {found['eval_accuracy']:.4f}{self.left(state)}"
        )

    def left(self, state: TrainerState) -> str:
        """How long the rest of the steps takes, as far as those that were done can say."""
        begun, first = self.begun
        done, missing = state.global_step - first, state.max_steps - state.global_step
        if not done or missing <= 0:
            return ""
        seconds = round((time.monotonic() - begun) / done * missing)
        return f"; about {seconds // 60}:{seconds % 60:02} left"

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The bar goes."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
