"""`headscope finetune`: a table of texts and labels -> a model that knows them, and what its heads learned."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

import typer

from headscope.cli.loading import quiet
from headscope.cli.reading import ENCODING, MODEL
from headscope.cli.status import say

DATA = "A .csv, .tsv, .jsonl or .parquet file with one example in each row."
TASK = "What to train for; by the columns unless given."
OF = MODEL + " Or a new one: new:encoder, new:decoder or new:encoder-decoder, as in new:decoder,layers=2,width=128."
DROPOUT = "While training. With 0 the run is the same on any number of processes."


def finetune(
    data: Annotated[str, typer.Option(metavar="FILE", help=DATA)],
    model: Annotated[str | None, typer.Option(metavar="DIR_OR_ID", help=OF)] = None,
    task: Annotated[
        Literal["classify", "tag", "answer", "write", "summarise", "translate"] | None, typer.Option(help=TASK)
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="The column of the texts; text, words, … unless given.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="The column of the labels; label, tags, … unless given.")
    ] = None,
    question_column: Annotated[str | None, typer.Option(help="The column of the questions; question, …")] = None,
    context_column: Annotated[str | None, typer.Option(help="That of the texts with the answers; context, …")] = None,
    answer_column: Annotated[str | None, typer.Option(help="That of the answers; answer, answers, …")] = None,
    start_column: Annotated[
        str | None, typer.Option(help="That of the first letter of each answer; answer_start, …; may be left out.")
    ] = None,
    source_column: Annotated[
        str | None, typer.Option(help="The column of what is summarised or translated; document, source, …")
    ] = None,
    target_column: Annotated[
        str | None, typer.Option(help="That of what is to be written; summary, target, …; lists are references.")
    ] = None,
    source_language: Annotated[
        str | None, typer.Option(metavar="CODE", help="What is read, for a multilingual model: en_XX, eng_Latn, en, …")
    ] = None,
    target_language: Annotated[str | None, typer.Option(metavar="CODE", help="What is written.")] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Stands before every source; what the model's config names unless given.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(metavar="NAME", help=ENCODING)] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="The folder of what comes of it.")
    ] = "finetuned",
    epochs: Annotated[int, typer.Option(min=1, help="How many times each example is seen.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in one step, over all processes together.")] = 32,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="At its highest; 5e-5 unless given, and 2e-3 for a new model.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(min=3, help="Cut texts at so many tokens.")] = None,
    max_target: Annotated[int, typer.Option(min=2, help="Write so many tokens at most.")] = 128,
    beams: Annotated[int, typer.Option(min=1, help="Measure a beam search of so many beams, too; 1: none.")] = 4,
    eval_data: Annotated[str | None, typer.Option(metavar="FILE", help="Examples to evaluate with.")] = None,
    eval_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Else this share of the data, drawn at random.")
    ] = 0.2,
    accumulate: Annotated[int, typer.Option(min=1, help="Compute a step in so many parts: less memory.")] = 1,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16 where it is safe.")] = False,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Compute activations twice: less memory.")
    ] = False,
    lora: Annotated[
        int | None, typer.Option(min=1, metavar="RANK", help="Train adapters of this rank, merged in the end (peft).")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="End after so many evaluations without a smaller loss, with the best.")
    ] = None,
    schedule: Annotated[
        Literal["linear", "cosine", "constant"], typer.Option(help="How the learning rate falls.")
    ] = "linear",
    warmup: Annotated[float, typer.Option(min=0.0, max=0.9, help="Over this share of the steps it rises.")] = 0.06,
    attention: Annotated[
        str | None, typer.Option(metavar="NAME", help="headscope, sdpa, eager, …; by task and model unless given.")
    ] = None,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 200,
    dropout: Annotated[float, typer.Option(min=0.0, max=0.9, help=DROPOUT)] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the order, the new layer and the share.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in DIR, if there is one.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the training in DIR.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train a model on a table of examples, and see how good it became and what its heads learned.

    classify: a label for each text. tag: a tag for each word. answer: the part of a context that answers a question.
    write: each token of a text from those before it. summarise, translate: a text from another one. Models of
    transformers that fit the task are taken, or a new one.

    DIR gets the model and its tokenizer, report.html (metrics beside a baseline, examples that became right, both sides
    of each head), heads.csv, scores.json, the heads over the training in heads/, and checkpoints. A run that was
    stopped goes on from its last checkpoint with the same command and --resume. Several processes share each step:
    torchrun --nproc-per-node 2 -m headscope finetune …
    """
    options = dict(locals())  # every option by its name: those of headscope.train.finetune
    del options["debug"]
    train(**options)


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
