"""Accuracy and macro-F1 of labels, and what always giving the most frequent one reaches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def label_scores(said: Sequence[str], meant: Sequence[str]) -> dict[str, float]:
    """Accuracy, and the mean of the F1 of each label that occurs in what is meant.

    Example:
        >>> {name: round(score, 2) for name, score in label_scores("abbb", "aabb").items()}
        {'accuracy': 0.75, 'macro_f1': 0.73}
    """
    of_said, of_meant = Counter(said), Counter(meant)
    hits = Counter(label for label, other in zip(said, meant, strict=True) if label == other)
    f1 = [2 * hits[label] / (of_said[label] + count) for label, count in of_meant.items()]
    count = max(1, len(meant))
    return {"accuracy": sum(hits.values()) / count, "macro_f1": sum(f1) / max(1, len(f1))}


def most_frequent(train: Sequence[str], held: Sequence[str]) -> float:
    """The share of an evaluation that has the most frequent label of the training; of equals the first by letter.

    Example:
        >>> most_frequent("aab", "abbb")
        0.25
    """
    counts = Counter(train)
    label = min(counts, key=lambda name: (-counts[name], name))
    return sum(other == label for other in held) / max(1, len(held))
