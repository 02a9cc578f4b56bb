"""Features through a model, batch by batch, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from headscope.train.eval_mode import undisturbed
from headscope.train.tasks.task import Task, Tools

BATCH = 32
T = TypeVar("T")


def forward(
    task: Task,
    rows: Sequence[dict[str, Any]],
    tools: Tools,
    reduced: Callable[[Tensor, dict[str, Any]], T],
    batch: int = BATCH,
) -> list[T]:
    """What `reduced` makes of the logits of each row, padding included; rows of similar length share a batch."""
    collate = task.collator(tools)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    found: dict[int, T] = {}
    with undisturbed(tools.model):
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            inputs = collate([rows[i] for i in chosen])
            del inputs["labels"]
            outputs = tools.model(**{name: x.to(tools.model.device) for name, x in inputs.items()})
            for i, logits in zip(chosen, task.logits(outputs).float().cpu(), strict=True):
                found[i] = reduced(logits, rows[i])
    return [found[i] for i in range(len(rows))]
