"""The options of `headscope finetune`: their types, limits and help, in the order in which the command lists them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from headscope.cli.reading import ENCODING, MODEL

OF = MODEL + " Or a new one: new:encoder, new:decoder or new:encoder-decoder, as in new:decoder,layers=2,width=128."


def column(text: str) -> Any:
    """An option that names a column of the table."""
    return typer.Option(metavar="COLUMN", help=text)


def count(least: int, text: str) -> Any:
    """An option that takes a whole number."""
    return typer.Option(metavar="N", min=least, help=text)


def share(most: float | None, text: str) -> Any:
    """An option that takes a number from 0 on."""
    return typer.Option(metavar="X", min=0.0, max=most, help=text)


Data = Annotated[
    str, typer.Option(metavar="FILE", help="A .csv, .tsv, .jsonl or .parquet file with one example in each row.")
]
Model = Annotated[str | None, typer.Option(metavar="DIR_OR_ID", help=OF)]
Task = Annotated[
    Literal["classify", "tag", "answer", "write", "summarise", "translate"] | None,
    typer.Option(help="The task; by the columns unless given."),
]
TextColumn = Annotated[str | None, column("The column of the texts; text, words, … unless given.")]
LabelColumn = Annotated[str | None, column("The column of the labels; label, tags, … unless given.")]
QuestionColumn = Annotated[str | None, column("The column of the questions; question, … unless given.")]
ContextColumn = Annotated[str | None, column("The column of the texts with the answers; context, … unless given.")]
AnswerColumn = Annotated[str | None, column("The column of the answers; answer, answers, … unless given.")]
StartColumn = Annotated[
    str | None, column("The column of the character at which each answer starts; answer_start, …; may be left out.")
]
SourceColumn = Annotated[
    str | None, column("The column of the texts to summarise or translate; document, source, … unless given.")
]
TargetColumn = Annotated[
    str | None, column("The column of the summaries or translations; summary, target, …; lists are several references.")
]
SourceLanguage = Annotated[
    str | None,
    typer.Option(metavar="CODE", help="The language of the source, for a multilingual model: en_XX, eng_Latn, en, …"),
]
TargetLanguage = Annotated[str | None, typer.Option(metavar="CODE", help="The language of the target.")]
Prefix = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Put before every source; the prefix in the model's config unless given."),
]
Encoding = Annotated[str | None, typer.Option(metavar="NAME", help=ENCODING)]
Output = Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="The folder for the results.")]
Epochs = Annotated[int, count(1, "How many times each example is seen.")]
BatchSize = Annotated[int, count(1, "Examples in one step, over all processes together.")]
LearningRate = Annotated[
    float | None, share(None, "The highest learning rate; 5e-5 unless given, and 2e-3 for a new model.")
]
MaxLength = Annotated[int | None, count(3, "Truncate texts to so many tokens.")]
MaxTarget = Annotated[int, count(2, "Generate so many tokens at most.")]
Beams = Annotated[int, count(1, "Beams of the beam search that is measured beside greedy decoding; 1: none.")]
EvalData = Annotated[str | None, typer.Option(metavar="FILE", help="The examples to evaluate on.")]
EvalShare = Annotated[float, share(1.0, "Without --eval-data: the share of the data that is held out, at random.")]
Accumulate = Annotated[int, count(1, "Gradient accumulation: a step in so many parts, for less memory.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16 where it is safe.")]
GradientCheckpointing = Annotated[
    bool,
    typer.Option("--gradient-checkpointing", help="Recompute activations in the backward pass, for less memory."),
]
Lora = Annotated[
    int | None,
    typer.Option(min=1, metavar="RANK", help="Train LoRA adapters of this rank (with peft), merged at the end."),
]
Patience = Annotated[
    int | None, count(1, "Stop after so many evaluations without a smaller loss, with the best weights.")
]
Schedule = Annotated[
    Literal["linear", "cosine", "constant"], typer.Option(help="How the learning rate falls after the warmup.")
]
Warmup = Annotated[float, share(0.9, "The share of the steps in which the learning rate rises.")]
Attention = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The attention implementation: headscope, sdpa, eager, …; by task and model unless given."
    ),
]
SaveEvery = Annotated[int, count(1, "Steps between two checkpoints.")]
Dropout = Annotated[float, share(0.9, "Dropout in training. With 0 a run is the same on any number of processes.")]
Seed = Annotated[int, count(0, "The seed of the order of the examples, of new layers and of the split.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in DIR, if there is one.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the training in DIR.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
