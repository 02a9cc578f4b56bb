"""Which queries count: those that are not padding; and whether they are the keys' own positions."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.attention.masks.runs import Runs
from headscope.look.axis import Axis


def same_positions(queries: Axis, keys: Axis) -> bool:
    """Whether the queries are the last keys: self-attention, with or without a cache."""
    shift = keys.length - queries.length
    return shift >= 0 and queries.kind == keys.kind and queries.labels == keys.labels[shift:]


def real_rows(runs: Runs | None, queries: int, keys: int, same: bool) -> Bool[Tensor, " q"]:
    """The queries that may see something and are not padding, by the runs of the first batch item and head.

    Padding is a position of self-attention whose own key nobody may see.
    """
    if runs is None:
        return torch.full((queries,), keys > 0)
    start, stop = (side[0, 0].expand(queries, -1).cpu().long() for side in runs)
    sees = (stop > start).any(-1)
    if not same:
        return sees
    # Key j is seen by someone where more runs have opened than closed up to j.
    steps = torch.zeros(keys + 1, dtype=torch.int64)
    ones = torch.ones(start.numel(), dtype=torch.int64)
    steps.index_add_(0, start.flatten(), ones).index_add_(0, stop.flatten(), -ones)
    return sees & (steps.cumsum(0)[keys - queries : -1] > 0)
