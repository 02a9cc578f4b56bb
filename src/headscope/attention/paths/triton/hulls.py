"""Which keys a block of queries visits: the hull of its runs, slot by slot, made on the device in O(N)."""

from __future__ import annotations

import torch
from jaxtyping import Int32
from torch import Tensor

from headscope.attention.masks.runs import Runs


def hulls(runs: Runs, queries: int, keys: int, block: int) -> Int32[Tensor, "b h blocks r 4"]:
    """The keys that a block of queries must visit for the n-th run of its queries, and those that need no mask there.

    The four numbers are `low, high`, the hull of the n-th runs of all queries of the block, and `full_low, full_high`,
    the keys that are in the n-th run of every query. Runs of one query are disjoint, so that a kernel that visits slot
    after slot sees each allowed pair exactly once. Nothing is read into Python.

    Shapes:
        runs `(b|1, h|1, q|1, r)` → `(b|1, h|1, blocks|1, r, 4)`; the axes that all share stay at size 1.

    Example:
        >>> from headscope.attention.masks.window import causal
        >>> hulls(causal().runs(4, 4), 4, 4, 2).flatten(0, 3).tolist()
        [[0, 2, 0, 1], [0, 4, 0, 3]]
    """
    start, stop = (side.clamp(0, keys) for side in runs)
    if start.shape[2] == 1:
        return torch.stack([start, stop, start, stop], dim=-1)
    empty = stop <= start
    low, full_high = start.masked_fill(empty, keys), stop.masked_fill(empty, 0)
    high, full_low = full_high, low
    # Rows past the last query are in no hull and stand in nobody's way.
    spare = -queries % block
    if spare:
        low, high = _with_rows(low, spare, keys), _with_rows(high, spare, 0)
        full_low, full_high = _with_rows(full_low, spare, 0), _with_rows(full_high, spare, keys)
    blocks = -(-queries // block)
    b, h, _, r = low.shape
    low, high, full_low, full_high = (x.reshape(b, h, blocks, block, r) for x in (low, high, full_low, full_high))
    return torch.stack([low.amin(3), high.amax(3), full_low.amax(3), full_high.amin(3)], dim=-1)


def _with_rows(side: Tensor, count: int, value: int) -> Tensor:
    """Some more rows of one value."""
    return torch.nn.functional.pad(side, (0, 0, 0, count), value=value)
