"""Exact match and F1 of answers, as SQuAD's evaluation defines them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = frozenset(string.punctuation)


def normalised(text: str) -> str:
    """An answer without case, ASCII punctuation, English articles and superfluous spaces.

    Source: Rajpurkar et al. 2016, evaluate-v1.1.py: lower case, then punctuation, then articles, then spaces.

    Example:
        >>> normalised(" The Beatles' first,  an LP ")
        'beatles first lp'
    """
    bare = "".join(letter for letter in text.lower() if letter not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", bare).split())


def exact(said: str, meant: str) -> float:
    """1 where two answers are the same after normalisation, else 0."""
    return float(normalised(said) == normalised(meant))


def overlap(said: str, meant: str) -> float:
    """The F1 of the words of two answers; where one of them is empty, whether both are.

    Example:
        >>> round(overlap("in the year 1990", "1990"), 3)
        0.5
    """
    words = [normalised(text).split() for text in (said, meant)]
    if not words[0] or not words[1]:
        return float(words[0] == words[1])
    shared = sum((Counter(words[0]) & Counter(words[1])).values())
    return 2 * shared / (len(words[0]) + len(words[1]))


def answer_scores(said: Sequence[str], meant: Sequence[Sequence[str]]) -> dict[str, float]:
    """Exact match and F1, each with the best of the answers that are meant; no answer is the empty one.

    An answer of which normalisation leaves nothing ("The") does not count, unless there is no other.

    Source: Rajpurkar et al. 2018, evaluate-v2.0.py.

    Example:
        >>> answer_scores(["the cat"], [["A cat.", "dog"]])
        {'exact_match': 1.0, 'f1': 1.0}
    """

    def mean(score: Callable[[str, str], float]) -> float:
        left = [[other for other in others if normalised(other)] or [""] for others in meant]
        best = [max(score(one, other) for other in others) for one, others in zip(said, left, strict=True)]
        return sum(best) / max(1, len(best))

    return {"exact_match": mean(exact), "f1": mean(overlap)}
