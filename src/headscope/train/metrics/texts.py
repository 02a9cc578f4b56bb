"""ROUGE of summaries by rouge-score, chrF and BLEU of translations by sacrebleu, each with several references."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from headscope.train.metrics.extra import library

ROUGE = ("rouge1", "rouge2", "rougeL")


def rouge() -> ModuleType:
    """The module of rouge-score."""
    return library("rouge_score.rouge_scorer", "rouge-score", "ROUGE")


def sacrebleu() -> ModuleType:
    """The module of sacrebleu."""
    return library("sacrebleu", "sacrebleu", "chrF and BLEU")


def rouge_scores(said: Sequence[str], meant: Sequence[Sequence[str]]) -> dict[str, float]:
    """The mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L, with stems; of several references the best.

    Raises:
        MissingExtra: rouge-score is not installed.

    Source: Lin 2004; the settings of rouge-score in the papers that use it (use_stemmer=True).
    """
    scorer = rouge().RougeScorer(list(ROUGE), use_stemmer=True)
    found = [scorer.score_multi(list(others), one) for one, others in zip(said, meant, strict=True)]
    return {name: sum(x[name].fmeasure for x in found) / max(1, len(found)) for name in ROUGE}


def translation_scores(said: Sequence[str], meant: Sequence[Sequence[str]]) -> dict[str, float]:
    """chrF and BLEU of a whole evaluation, from 0 to 100.

    Raises:
        MissingExtra: sacrebleu is not installed.

    Source: Popović 2015 (chrF2); Post 2018 (sacreBLEU, 13a tokens).
    """
    most = max(map(len, meant), default=1)
    # One list for each reference; those that an example lacks are its first once more, which changes no maximum.
    references = [[others[i] if i < len(others) else others[0] for others in meant] for i in range(most)]
    return {
        "chrf": float(sacrebleu().corpus_chrf(list(said), references).score),
        "bleu": float(sacrebleu().corpus_bleu(list(said), references).score),
    }


def exact_share(said: Sequence[str], meant: Sequence[Sequence[str]]) -> float:
    """The share that is one of the references, but for spaces at the ends.

    Example:
        >>> exact_share(["a", "b "], [["a"], ["c", "b"]])
        1.0
    """
    hits = [one.strip() in [other.strip() for other in others] for one, others in zip(said, meant, strict=True)]
    return sum(hits) / max(1, len(hits))
