"""A translation of each text."""

from __future__ import annotations

from collections.abc import Sequence

from headscope.train.metrics.texts import exact_share, sacrebleu, translation_scores
from headscope.train.tasks.from_source import FromSource, Source
from headscope.train.tasks.task import Column, Tools


class Translate(FromSource):
    """Translation, measured by chrF and BLEU."""

    name = "translate"
    columns = (Column("source", ("source", "src", "text")), Column("target", ("target", "tgt", "translation")))
    holds = "a text and its translation"
    shown_scores = ("chrf", "bleu", "exact", "chrf_beam", "exact_beam")
    shown_baselines = ("copy_chrf", "copy_exact")

    def require(self, examples: Sequence[Source]) -> None:
        """Find sacrebleu."""
        sacrebleu()

    def measured(self, said: Sequence[str], meant: Sequence[Sequence[str]]) -> dict[str, float]:
        """chrF, BLEU, and the share that is a reference to the letter."""
        return translation_scores(said, meant) | {"exact": exact_share(said, meant)}

    def baseline(self, train: Sequence[Source], held: Sequence[Source], tools: Tools) -> dict[str, float]:
        """The source, copied."""
        found = self.measured([x.source for x in held], [x.targets for x in held])
        return {f"copy_{name}": score for name, score in found.items()}
