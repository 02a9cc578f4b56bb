"""How many labels are shown beside a map."""

from __future__ import annotations

from headscope.characters import ELLIPSIS, sentence, shortened, visible

__all__ = ["ELLIPSIS", "every", "sentence", "shortened", "visible"]


def every(count: int, fit: int) -> int:
    """Label every how many-th of `count` positions, when `fit` labels fit: 1, 2, 5, 10, 20, 50, …

    Example:
        >>> every(12, 40), every(512, 40)
        (1, 20)
    """
    step, factors = 1, (2.0, 2.5, 2.0)
    turn = 0
    while count > step * max(1, fit):
        step = int(step * factors[turn % 3])
        turn += 1
    return step
