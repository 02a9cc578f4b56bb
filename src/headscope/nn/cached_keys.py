"""Which of the keys in a cache the newest positions may see."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from headscope.attention.masks.lengths import first
from headscope.attention.masks.mask import Intervals, Mask
from headscope.attention.masks.runs import Runs
from headscope.attention.masks.window import Window, causal
from headscope.attention.masks.window import window as window_of


def visible_keys(
    n: int,
    live: int,
    dropped: int,
    mask: Mask | None,
    *,
    window: int | None,
    keep: int,
    padding: Int[Tensor, " b"] | None,
) -> Mask | None:
    """What the last `n` positions may see of `live` keys.

    Args:
        dropped: how many columns before these keys a window has dropped.
        mask: that of the call itself.
        window, keep: of the cache.
        padding: how many columns of padding each sequence begins with.
    """
    # One query at the end sees all that is before it.
    parts = [] if mask is None or (n == 1 and isinstance(mask, Window) and mask.left is None) else [mask]
    if window is not None and n > 1:
        reach = window_of(window - 1)
        parts.append(reach if not keep else causal() & (first(keep) | reach))
    if padding is not None:
        start = (padding - dropped).clamp(0, live).int()[:, None, None, None]
        parts.append(Intervals(Runs(start, torch.full_like(start, live)), live))
    found = parts[0] if parts else None
    for part in parts[1:]:
        assert found is not None
        found = found & part
    return found
