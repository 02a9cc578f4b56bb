"""The F1 of entities, whole and of the right kind, as CoNLL 2003 counts them; computed by seqeval."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from types import ModuleType

from headscope.train.metrics.extra import library


def has_entities(tags: Sequence[str]) -> bool:
    """Whether tags are of the kind B-X, I-X.

    Example:
        >>> has_entities(["O", "B-PER"]), has_entities(["N", "O"])
        (True, False)
    """
    return any(tag.startswith(("B-", "I-")) for tag in tags)


def seqeval() -> ModuleType:
    """The metrics of seqeval."""
    return library("seqeval.metrics", "seqeval", "the F1 of entities")


def entity_scores(said: Sequence[Sequence[str]], meant: Sequence[Sequence[str]]) -> dict[str, float]:
    """F1, precision and recall over the entities of all texts.

    Raises:
        MissingExtra: seqeval is not installed.

    Source: Tjong Kim Sang and De Meulder 2003; seqeval's default mode, which is that of conlleval.
    """
    metrics = seqeval()
    sides = [list(tags) for tags in meant], [list(tags) for tags in said]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no entity said: a precision of 0
        return {
            "entity_f1": float(metrics.f1_score(*sides)),
            "entity_precision": float(metrics.precision_score(*sides)),
            "entity_recall": float(metrics.recall_score(*sides)),
        }
