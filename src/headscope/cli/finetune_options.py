"""The options of `headscope finetune`: their types, limits and help, in the order in which the command lists them."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from headscope.cli.reading import ENCODING, MODEL

DATA = "A .csv, .tsv, .jsonl or .parquet file with one example in each row."
TASK = "What to train for; by the columns unless given."
OF = MODEL + " Or a new one: new:encoder, new:decoder or new:encoder-decoder, as in new:decoder,layers=2,width=128."
DROPOUT = "While training. With 0 the run is the same on any number of processes."

Data = Annotated[str, typer.Option(metavar="FILE", help=DATA)]
Model = Annotated[str | None, typer.Option(metavar="DIR_OR_ID", help=OF)]
Task = Annotated[
    Literal["classify", "tag", "answer", "write", "summarise", "translate"] | None, typer.Option(help=TASK)
]
TextColumn = Annotated[str | None, typer.Option(help="The column of the texts; text, words, … unless given.")]
LabelColumn = Annotated[str | None, typer.Option(help="The column of the labels; label, tags, … unless given.")]
QuestionColumn = Annotated[str | None, typer.Option(help="The column of the questions; question, …")]
ContextColumn = Annotated[str | None, typer.Option(help="That of the texts with the answers; context, …")]
AnswerColumn = Annotated[str | None, typer.Option(help="That of the answers; answer, answers, …")]
StartColumn = Annotated[
    str | None, typer.Option(help="That of the first letter of each answer; answer_start, …; may be left out.")
]
SourceColumn = Annotated[
    str | None, typer.Option(help="The column of what is summarised or translated; document, source, …")
]
TargetColumn = Annotated[
    str | None, typer.Option(help="That of what is to be written; summary, target, …; lists are references.")
]
SourceLanguage = Annotated[
    str | None, typer.Option(metavar="CODE", help="What is read, for a multilingual model: en_XX, eng_Latn, en, …")
]
TargetLanguage = Annotated[str | None, typer.Option(metavar="CODE", help="What is written.")]
Prefix = Annotated[
    str | None, typer.Option(help="Stands before every source; what the model's config names unless given.")
]
Encoding = Annotated[str | None, typer.Option(metavar="NAME", help=ENCODING)]
Output = Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="The folder of what comes of it.")]
Epochs = Annotated[int, typer.Option(min=1, help="How many times each example is seen.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Examples in one step, over all processes together.")]
LearningRate = Annotated[
    float | None, typer.Option(min=0.0, help="At its highest; 5e-5 unless given, and 2e-3 for a new model.")
]
MaxLength = Annotated[int | None, typer.Option(min=3, help="Cut texts at so many tokens.")]
MaxTarget = Annotated[int, typer.Option(min=2, help="Write so many tokens at most.")]
Beams = Annotated[int, typer.Option(min=1, help="Measure a beam search of so many beams, too; 1: none.")]
EvalData = Annotated[str | None, typer.Option(metavar="FILE", help="Examples to evaluate with.")]
EvalShare = Annotated[float, typer.Option(min=0.0, max=1.0, help="Else this share of the data, drawn at random.")]
Accumulate = Annotated[int, typer.Option(min=1, help="Compute a step in so many parts: less memory.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16 where it is safe.")]
GradientCheckpointing = Annotated[
    bool, typer.Option("--gradient-checkpointing", help="Compute activations twice: less memory.")
]
Lora = Annotated[
    int | None, typer.Option(min=1, metavar="RANK", help="Train adapters of this rank, merged in the end (peft).")
]
Patience = Annotated[
    int | None, typer.Option(min=1, help="End after so many evaluations without a smaller loss, with the best.")
]
Schedule = Annotated[Literal["linear", "cosine", "constant"], typer.Option(help="How the learning rate falls.")]
Warmup = Annotated[float, typer.Option(min=0.0, max=0.9, help="Over this share of the steps it rises.")]
Attention = Annotated[
    str | None, typer.Option(metavar="NAME", help="headscope, sdpa, eager, …; by task and model unless given.")
]
SaveEvery = Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")]
Dropout = Annotated[float, typer.Option(min=0.0, max=0.9, help=DROPOUT)]
Seed = Annotated[int, typer.Option(min=0, help="Of the order, the new layer and the share.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in DIR, if there is one.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the training in DIR.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
