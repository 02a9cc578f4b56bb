"""Masks by distance: causal, and windows of keys near the query's own."""

from __future__ import annotations

import torch
from torch import Tensor

from headscope.attention.masks.last_query import LastQuery, of_range
from headscope.attention.masks.mask import Mask
from headscope.attention.masks.runs import Runs, trim
from headscope.attention.scalars import count
from headscope.errors import MaskError


class Window(Mask):
    """Keys near the query's own position; `causal()` is the window without a left end."""

    def __init__(self, left: int | None, right: int | None) -> None:
        self.left = None if left is None else beside("left", left)
        self.right = None if right is None else beside("right", right)

    def _runs(self, q: int, k: int, device: torch.device) -> Runs:
        own = torch.arange(k - q, k, device=device, dtype=torch.int32)
        return trim(*runs_of_window(own[None, None, :, None], k, self.left, self.right))

    def last_query(self, k: int, device: torch.device) -> LastQuery:
        """One range, from numbers alone."""
        first = 0 if self.left is None else max(k - 1 - self.left, 0)
        return of_range(first, k)

    def __repr__(self) -> str:
        return "causal()" if (self.left, self.right) == (None, 0) else f"window({self.left}, {self.right})"


def beside(name: str, given: int) -> int:
    """How many keys on one side of the query's own key, checked."""
    found = count("window", name, given)
    if found < 0:
        raise MaskError(
            f"window: {name}={found}; count the keys beside the query's own key, 0 or more, or None for all."
        )
    return found


class Slice(Mask):
    """The keys `first … last - 1` of so many, the same for every query: numbers, of which runs are made on demand."""

    def __init__(self, first: int, last: int, keys: int) -> None:
        self.first, self.last, self.keys = first, last, keys

    def _runs(self, q: int, k: int, device: torch.device) -> Runs:
        self._fits(k)
        return Runs(*(torch.full((1, 1, 1, 1), x, dtype=torch.int32, device=device) for x in (self.first, self.last)))

    def last_query(self, k: int, device: torch.device) -> LastQuery:
        """The range itself."""
        self._fits(k)
        return of_range(self.first, self.last)

    def _fits(self, keys: int) -> None:
        if keys != self.keys:
            raise MaskError(f"{self!r}: asked for {keys} keys; this mask is only for its own.")

    def __repr__(self) -> str:
        return f"keys({self.first} to {self.last - 1} of {self.keys})"


def runs_of_window(own: Tensor, keys: int | Tensor, left: int | None, right: int | None) -> Runs:
    """The keys beside each query's own key: `left` before it, `right` after it, all of them where that is None.

    Shapes:
        own `(b|1, h|1, q, 1)`: the place of each query's own key, which may lie before the first or after the last.
        keys: how many there are, for all or for each of these.
    """
    start = torch.zeros_like(own) if left is None else (own - left).clamp(min=0).clamp(max=keys)
    stop = torch.zeros_like(own) + keys if right is None else (own + (right + 1)).clamp(min=0).clamp(max=keys)
    return Runs(start.int(), torch.maximum(start, stop).int())


def causal() -> Mask:
    """Each query sees its own key and those before it; the last query is at the last key.

    Torch's `is_causal` aligns the first query with the first key instead; the two agree when there are as many queries
    as keys.

    Example:
        >>> causal().to_dense(2, 3).int().squeeze().tolist()
        [[1, 1, 0], [1, 1, 1]]
    """
    return Window(None, 0)


def window(left: int | None, right: int | None = 0) -> Mask:
    """Each query sees `left` keys before its own, its own, and `right` keys after it; None means all of them.

    The counts stand beside the query's own key, as in flash-attn: `window(255)` is a window of 256 keys.

    Raises:
        MaskError: a negative count.

    Source: Beltagy et al. 2020 (Longformer), Jiang et al. 2023 (Mistral).

    Example:
        >>> window(1).to_dense(3, 3).int().squeeze().tolist()
        [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    return Window(left, right)
