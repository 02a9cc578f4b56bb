"""Chosen positions: one, a slice, some, or all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from headscope.errors import LookError

Positions = int | slice | Sequence[int] | None


def positions(what: str, chosen: Positions, count: int) -> Int64[Tensor, " n"]:
    """Chosen positions as indices from 0; negative ones count from the end.

    Raises:
        LookError: a position that does not exist.
    """
    if chosen is None or isinstance(chosen, slice):
        return torch.arange(count)[chosen if chosen is not None else slice(None)]
    indices = torch.as_tensor([chosen] if isinstance(chosen, int) else list(chosen), dtype=torch.int64)
    wrong = indices[(indices < -count) | (indices >= count)]
    if len(wrong):
        raise LookError(f"weights: {what} {int(wrong[0])} does not exist; there are {count}, from 0 to {count - 1}.")
    return indices % max(count, 1)
