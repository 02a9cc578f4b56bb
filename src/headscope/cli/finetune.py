"""`headscope finetune`: a table of texts and labels -> a model that knows them, and what its heads learned."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headscope.cli.loading import quiet
from headscope.cli.reading import ENCODING, MODEL
from headscope.cli.status import say
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.train.finetune import Settings

DATA = "A .csv, .tsv, .jsonl or .parquet file with a text and a label in each row."
TASK = "One label for each text, or one tag for each word; by the label column unless given."
DROPOUT = "While training. With 0 the run is the same on any number of processes."


def finetune(
    data: Annotated[str, typer.Option(metavar="FILE", help=DATA)],
    model: Annotated[str | None, typer.Option(metavar="DIR_OR_ID", help=MODEL)] = None,
    task: Annotated[Literal["classify", "tag"] | None, typer.Option(help=TASK)] = None,
    text_column: Annotated[
        str | None, typer.Option(help="The column of the texts; text, words, … unless given.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="The column of the labels; label, tags, … unless given.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(metavar="NAME", help=ENCODING)] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="The folder of what comes of it.")
    ] = "finetuned",
    epochs: Annotated[int, typer.Option(min=1, help="How many times each example is seen.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in one step, over all processes together.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="At its highest; it falls to 0 at the end.")] = 5e-5,
    max_length: Annotated[int | None, typer.Option(min=3, help="Cut texts at so many tokens.")] = None,
    eval_data: Annotated[str | None, typer.Option(metavar="FILE", help="Examples to evaluate with.")] = None,
    eval_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Else this share of the data, drawn at random.")
    ] = 0.2,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 200,
    dropout: Annotated[float, typer.Option(min=0.0, max=0.9, help=DROPOUT)] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the order, the new layer and the share.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in DIR, if there is one.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the training in DIR.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Fine-tune a pretrained model on a table, and see how every head changed.

    A text gets one label, or each of its words a tag: lists in .jsonl and .parquet; in .csv words and tags with spaces
    between them. Rows without a text or a label are skipped and counted.

    DIR gets the model and its tokenizer, report.html (accuracy, how every head changed, both sides of each head),
    heads.csv, scores.json, the heads over the training in heads/, and checkpoints. A run that was stopped goes on from
    its last checkpoint with the same command and --resume. Several processes share each step:
    torchrun --nproc-per-node 2 -m headscope finetune …
    """
    from headscope.files.places import check_folder, path_of
    from headscope.train.finetune import Settings

    if resume and overwrite:
        raise HeadscopeError("finetune: --resume goes on and --overwrite starts again. Give one of the two.")
    settings = Settings(
        path_of("--data", data), check_folder("-o", path_of("-o", output), parents=True), model, task, text_column,
        label_column, eval_data=None if eval_data is None else path_of("--eval-data", eval_data),
        encoding=encoding, eval_share=eval_share,
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, max_length=max_length,
        save_every=save_every, dropout=dropout, seed=seed, resume=resume, overwrite=overwrite,
    )  # fmt: skip
    train(settings)


def train(settings: Settings) -> None:
    """Train, and say what came of it."""
    import torch

    from headscope.train.finetune import finetune as run

    quiet()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    try:
        found = run(settings, say)
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    if found is None:
        return
    scores = found.scores
    say(
        f"\naccuracy {scores['accuracy']:.4f} (the most frequent label alone: {scores['most_frequent']:.4f}), "
        f"macro-F1 {scores['macro_f1']:.4f}, loss {scores['loss']:.6f}"
    )
    moved = ", ".join(f"{layer}.{head} ({share:.2f})" for layer, head, share in found.moved[:5])
    say(f"heads that put most of their attention elsewhere: {moved}")
    say(f"model: {settings.folder.absolute()}\nreport: {found.report.absolute()}")
