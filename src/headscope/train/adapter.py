"""`--lora r`: instead of the weights two thin matrices beside each of them are trained, and merged in the end."""

from __future__ import annotations

from typing import Any

import torch

from headscope.errors import TrainingError
from headscope.train.metrics.extra import library


def adapted(model: Any, rank: int) -> Any:
    """Put adapters beside every linear layer of a model and leave only them, and a new last layer, to be trained.

    Returns:
        The adapter of peft; the model itself now has it inside.

    Raises:
        MissingExtra: peft is not installed.
        TrainingError: peft cannot adapt this model, or no layer of it is as wide as the rank.

    Source: Hu et al. 2021.
    """
    peft = library("peft", "peft", "--lora")
    refuse_rank(model, rank)
    config = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", modules_to_save=new_layers(model)
    )
    try:
        return peft.get_peft_model(model, config)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise TrainingError(
            f"--lora: peft cannot adapt this model ({error}). Train it without --lora, or give another model."
        ) from error


def new_layers(model: Any) -> list[str]:
    """The layers behind the body that a task brings: they begin at random, so they are trained as they are.

    A layer that scores the tokens of a vocabulary is none of them, the pretraining had it.
    """
    body = model.base_model
    if body is model or model.get_output_embeddings() is not None:
        return []
    others = [(name, layer) for name, layer in model.named_children() if layer is not body]
    return [name for name, layer in others if next(layer.parameters(), None) is not None]


def refuse_rank(model: Any, rank: int) -> None:
    """Raise where two matrices of a rank are larger than every matrix that they stand beside, and reach no more.

    Raises:
        TrainingError: the rank is above both sides of every linear layer; names the largest that is not.
    """
    from transformers.pytorch_utils import Conv1D

    widths = (min(module.weight.shape) for module in model.modules() if isinstance(module, torch.nn.Linear | Conv1D))
    widest = max(widths, default=rank)
    if rank > widest:
        raise TrainingError(
            f"--lora {rank}: no weight of this model has a rank above {widest}, so adapters gain nothing by more. "
            f"Give {widest} at most; 8 or 16 is usual."
        )


def merged(adapter: Any) -> Any:
    """The model with its adapters merged into its weights: it needs no peft any more."""
    return adapter.merge_and_unload()
