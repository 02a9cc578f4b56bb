"""The settings of a fine-tuning as those of the transformers `Trainer`."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import TrainingArguments

from headscope.train.settings import Settings


def options_of(settings: Settings, count: int) -> TrainingArguments:
    """The options of the Trainer, for so many rows to train with."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    # Without this word accelerate starts the processes but lets each of them train alone.
    on_cpu = not torch.accelerator.is_available()
    # In later versions this option has another name, and this one warns.
    activations: Any = {"gradient_checkpointing": True} if settings.gradient_checkpointing else {}
    return TrainingArguments(
        output_dir=str(settings.output),
        per_device_train_batch_size=settings.batch_size // world // settings.accumulate,
        gradient_accumulation_steps=settings.accumulate,
        bf16=settings.bf16,
        per_device_eval_batch_size=max(8, settings.batch_size // world),
        num_train_epochs=settings.epochs,
        learning_rate=settings.rate,
        lr_scheduler_type=settings.schedule if settings.schedule != "constant" else "constant_with_warmup",
        warmup_steps=settings.warmup,
        weight_decay=0.01,
        seed=settings.seed,
        eval_strategy="epoch",
        save_strategy="steps",
        save_steps=settings.save_every,
        logging_steps=max(1, min(10, count // settings.batch_size // 4)),
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and world > 1 else None,
        log_level="error",
        label_names=["labels"],
        remove_unused_columns=False,
        **activations,
    )
