"""Mask tensors, as torch and models write them, read once: runs of keys, and a bias where they hold other numbers."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from headscope.attention.known import known
from headscope.attention.masks.runs import Runs, from_dense
from headscope.attention.masks.snapshot import Snapshot

Made = TypeVar("Made")

# A mask value this far below the largest of its row gives a weight of exactly 0 in float32, unless the scores of the
# row lie more than 8800 apart: models write minus infinity, the lowest float, -1e9 or -1e4 and mean "may not attend".
FAR = 9000.0


class Meaning(NamedTuple):
    """A mask tensor, read.

    Shapes:
        runs `(b|1, h|1, q|1, r)`, bias `(b|1, h|1, q|1, k)`; None where everything may be seen, or nothing is added.
    """

    runs: Runs | None
    bias: Tensor | None


def read(mask: Tensor) -> Meaning:
    """Runs and bias of a mask of `scaled_dot_product_attention`: booleans (True: may attend), or added numbers.

    Shapes:
        mask: four axes, each of full size or 1.
    """
    allowed, added = (mask, None) if mask.dtype == torch.bool else split(mask)
    return Meaning(None if known(allowed) and bool(allowed.all()) else runs_of(allowed), added)


def split(mask: Tensor) -> tuple[Tensor, Tensor | None]:
    """Added numbers as who may attend (True: may), and what is added where they may; None where that is 0 everywhere.

    This is the one place that knows what an additive mask means. Minus infinity, and numbers so low that their weight
    is 0, are "may not attend". A row of nothing but the lowest float sees nothing: torch gives it uniform weights only
    because that number is finite, and such rows are padding. NaN and plus infinity are kept, and spoil what they touch.

    Shapes:
        mask: keys in the last axis; both results have its shape.
    """
    if not mask.shape[-1]:
        return torch.ones_like(mask, dtype=torch.bool), None
    highest = mask.amax(-1, keepdim=True)
    # "highest - FAR" is lost in the rounding of a row that has nothing but the lowest float.
    hidden = (mask < highest - FAR) | (highest <= torch.finfo(mask.dtype).min / 2)
    added = mask.masked_fill(hidden, 0.0)
    return ~hidden, added if not known(added) or bool(added.any()) else None


def runs_of(allowed: Tensor) -> Runs:
    """The runs of a boolean mask; fast where every row is one run, as nearly all are."""
    keys = allowed.shape[-1]
    if not known(allowed) or not keys:
        return from_dense(allowed)
    count = allowed.sum(-1, dtype=torch.int32)
    # argmax of booleans is the first True; the last one is found through the highest position that is allowed.
    start = allowed.view(torch.uint8).argmax(-1).int()
    stop = start + count
    ends = torch.arange(keys, device=allowed.device, dtype=torch.int32)
    inside = (ends >= start[..., None]) & (ends < stop[..., None])
    if torch.equal(inside & allowed, inside):
        empty = count == 0
        return Runs(start.masked_fill(empty, 0)[..., None], stop.masked_fill(empty, 0)[..., None])
    return from_dense(allowed)


def causal_from_the_start(queries: int, keys: int, device: torch.device) -> Runs:
    """The runs of torch's `is_causal`: query i sees the keys 0 … i, counted from the start, not from the end."""
    stop = torch.arange(1, queries + 1, device=device, dtype=torch.int32).clamp(max=keys)[None, None, :, None]
    return Runs(torch.zeros_like(stop), stop)


class Reader:
    """Reads masks, each one once: the layers of a model share theirs."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], Snapshot, Meaning]] = {}

    def __call__(self, mask: Tensor) -> Meaning:
        """The meaning of a mask tensor with up to four axes."""
        if not known(mask):
            return read(mask.detach()[(None,) * (4 - mask.ndim)])
        return once(self._known, mask, lambda: read(mask.detach()[(None,) * (4 - mask.ndim)]))


def once(kept: dict[int, tuple[weakref.ref[Tensor], Snapshot, Made]], x: Tensor, make: Callable[[], Made]) -> Made:
    """What is made of a tensor, kept until the tensor is written to or is gone."""
    found = kept.get(id(x))
    if found is not None and found[0]() is x and found[1].holds(x):
        return found[2]
    before, made, key = Snapshot(x), make(), id(x)
    if before.lasts:
        kept[key] = (weakref.ref(x, lambda _: kept.pop(key, None)), before, made)
    return made
