"""What a score is called where people read it, and how it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from headscope.train.tasks.task import Task


class Name(NamedTuple):
    """The title of a score, and how its number is written: "share" as per cent, else with some decimals."""

    title: str
    form: str


NAMES: dict[str, Name] = {
    "accuracy": Name("Accuracy", "share"),
    "macro_f1": Name("Macro-F1", ".3f"),
    "entity_f1": Name("Entity F1", ".3f"),
    "exact_match": Name("Exact match", "share"),
    "f1": Name("F1", "share"),
    "first_sentence_exact_match": Name("Exact match of the first sentence", "share"),
    "first_sentence_f1": Name("F1 of the first sentence", "share"),
    "perplexity": Name("Perplexity per token", ".2f"),
    "bits_per_byte": Name("Bits per byte", ".3f"),
    "unigram_perplexity": Name("Perplexity of unigrams", ".2f"),
    "bigram_perplexity": Name("Perplexity of bigrams", ".2f"),
    "bigram_bits_per_byte": Name("Bits per byte of bigrams", ".3f"),
    "rougeL": Name("ROUGE-L", ".3f"),
    "rouge1": Name("ROUGE-1", ".3f"),
    "rouge2": Name("ROUGE-2", ".3f"),
    "rougeL_beam": Name("ROUGE-L by beam search", ".3f"),
    "first_sentence_rougeL": Name("ROUGE-L of the first sentence", ".3f"),
    "chrf": Name("chrF", ".1f"),
    "bleu": Name("BLEU", ".1f"),
    "exact": Name("Exact", "share"),
    "chrf_beam": Name("chrF by beam search", ".1f"),
    "exact_beam": Name("Exact by beam search", "share"),
    "copy_chrf": Name("chrF of the source, copied", ".1f"),
    "copy_exact": Name("Exact when the source is copied", "share"),
    "most_frequent": Name("Accuracy of the most frequent label", "share"),
}


def written(name: str, score: float) -> str:
    """A score as people read it.

    Example:
        >>> written("accuracy", 0.8125), written("macro_f1", 0.5)
        ('81.2 %', '0.500')
    """
    form = NAMES[name].form
    return f"{100 * score:.1f} %" if form == "share" else format(score, form)


def summary(task: Task, scores: Mapping[str, float]) -> str:
    """The scores of a task and those of its baseline in one line."""
    found, alone = (
        ", ".join(f"{NAMES[name].title} {written(name, scores[name])}" for name in names if name in scores)
        for names in (task.shown_scores, task.shown_baselines)
    )
    return f"{found}; without learning: {alone}"
