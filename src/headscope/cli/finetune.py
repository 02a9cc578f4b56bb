"""`headscope finetune`: a table of texts and labels -> a model that knows them, and what its heads learned."""

from __future__ import annotations

import logging
from typing import Any

from headscope.cli import finetune_options as options
from headscope.cli.loading import quiet
from headscope.cli.status import say


def finetune(
    data: options.Data,
    model: options.Model = None,
    task: options.Task = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    question_column: options.QuestionColumn = None,
    context_column: options.ContextColumn = None,
    answer_column: options.AnswerColumn = None,
    start_column: options.StartColumn = None,
    source_column: options.SourceColumn = None,
    target_column: options.TargetColumn = None,
    source_language: options.SourceLanguage = None,
    target_language: options.TargetLanguage = None,
    prefix: options.Prefix = None,
    encoding: options.Encoding = None,
    output: options.Output = "finetuned",
    epochs: options.Epochs = 3,
    batch_size: options.BatchSize = 32,
    learning_rate: options.LearningRate = None,
    max_length: options.MaxLength = None,
    max_target: options.MaxTarget = 128,
    beams: options.Beams = 4,
    eval_data: options.EvalData = None,
    eval_share: options.EvalShare = 0.2,
    accumulate: options.Accumulate = 1,
    bf16: options.Bf16 = False,
    gradient_checkpointing: options.GradientCheckpointing = False,
    lora: options.Lora = None,
    patience: options.Patience = None,
    schedule: options.Schedule = "linear",
    warmup: options.Warmup = 0.06,
    attention: options.Attention = None,
    save_every: options.SaveEvery = 200,
    dropout: options.Dropout = 0.0,
    seed: options.Seed = 0,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Train a model on examples, and see what its heads learned.

    classify: a label for each text. tag: a tag for each word. answer: the part of a context that answers a question.
    write: each token of a text from those before it. summarise, translate: a text from another one. Models of
    transformers that fit the task are taken, or a new one.

    DIR gets the model and its tokenizer, report.html (metrics beside a baseline, examples that became right, both sides
    of each head), heads.csv, scores.json, the heads over the training in heads/, and checkpoints. A run that was
    stopped goes on from its last checkpoint with the same command and --resume. Several processes share each step:
    torchrun --nproc-per-node 2 -m headscope finetune …
    """
    chosen = dict(locals())  # every option by its name: those of headscope.train.finetune
    del chosen["debug"]
    train(**chosen)


def train(data: str, output: str, **words: Any) -> None:
    """Train, and print what came of it."""
    import torch

    from headscope.train.finetuning import finetune as run
    from headscope.train.metrics.names import summary

    quiet()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    try:
        found = run(data, output, say=say, **words)
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    if found is None:
        return
    say(f"\n{summary(found.task, found.scores)}, loss {found.scores['loss']:.6f}")
    moved = ", ".join(f"{layer}.{head} ({share:.2f})" for layer, head, share in found.moved[:5])
    say(f"heads that put most of their attention elsewhere: {moved}")
    say(f"model: {found.folder.absolute()}\nreport: {found.report.absolute()}")
