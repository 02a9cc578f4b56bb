"""A summary of each text."""

from __future__ import annotations

from collections.abc import Sequence

from headscope.train.metrics.texts import rouge, rouge_scores
from headscope.train.tasks.from_source import FromSource, Source, first_sentence
from headscope.train.tasks.task import Column, Tools


class Summarise(FromSource):
    """Summarisation, measured by ROUGE."""

    name = "summarise"
    columns = (
        Column("source", ("document", "article", "source", "dialogue", "text")),
        Column("target", ("summary", "highlights", "target")),
    )
    holds = "a text and its summary"
    shown_scores = ("rougeL", "rouge1", "rouge2", "rougeL_beam")
    shown_baselines = ("first_sentence_rougeL",)

    def require(self, examples: Sequence[Source]) -> None:
        """Find rouge-score."""
        rouge()

    def measured(self, said: Sequence[str], meant: Sequence[Sequence[str]]) -> dict[str, float]:
        """ROUGE-1, ROUGE-2 and ROUGE-L."""
        return rouge_scores(said, meant)

    def baseline(self, train: Sequence[Source], held: Sequence[Source], tools: Tools) -> dict[str, float]:
        """ROUGE of the first sentence of each text."""
        found = rouge_scores([first_sentence(x.source) for x in held], [x.targets for x in held])
        return {f"first_sentence_{name}": score for name, score in found.items()}
