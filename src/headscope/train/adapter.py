"""`--lora r`: instead of the weights two thin matrices beside each of them are trained, and merged in the end."""

from __future__ import annotations

from typing import Any

from headscope.errors import TrainingError
from headscope.train.metrics.extra import library
from headscope.train.tasks.task import Task


def adapted(model: Any, task: Task, rank: int) -> Any:
    """Put adapters beside every linear layer of a model and leave only them, and a new last layer, to be trained.

    Returns:
        The adapter of peft; the model itself now has it inside.

    Raises:
        MissingExtra: peft is not installed.
        TrainingError: peft cannot adapt this model.

    Source: Hu et al. 2021.
    """
    peft = library("peft", "peft", "--lora")
    config = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type=task.peft_type
    )
    try:
        return peft.get_peft_model(model, config)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise TrainingError(
            f"--lora: peft cannot adapt this model ({error}). Train it without --lora, or give another model."
        ) from error


def merged(adapter: Any) -> Any:
    """The model with its adapters merged into its weights: it needs no peft any more."""
    return adapter.merge_and_unload()
