"""The largest scores of every query of a block, found through the maxima of pools of neighbouring keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# Keys in one pool of the lowest level, and pools of a level in one of the next.
POOL = 8
# With more threads than this torch's topk, which shares rows among them, is faster than numpy's partition, which does
# not; for few and short rows numpy takes a third of the time.
FEW_THREADS = 3


def pool_sizes(width: int | None) -> list[int]:
    """How many keys the pools of each level have, in rising order; each is a multiple of the one before.

    Args:
        width: keys in a cell of a map, which is one of the levels; None without a map.
    """
    if width is None:
        return [POOL, POOL * POOL]
    below = POOL if width % POOL == 0 and width > POOL else 4 if width % 4 == 0 and width > POOL else None
    sizes = [width] if below is None else [below, width]
    return sizes if width >= POOL * POOL else [*sizes, width * POOL]


def largest(
    levels: Sequence[tuple[int, Tensor]], count: int
) -> tuple[Float[Tensor, "n rows count"], Int64[Tensor, "n rows count"]]:
    """The `count` largest scores of every query and the keys that have them, in no order.

    The largest scores lie in the pools with the largest maxima, and these in the larger pools with the largest: a
    descent that looks at `count` pools of each level.

    Args:
        levels: keys in a pool, and the maxima `(n, pools, rows)`; the first level is the scores themselves, with pools
            of one key.
    """
    n, _, rows = levels[0][1].shape
    chosen, above = None, 0
    for number, (size, maxima) in reversed(list(enumerate(levels))):
        pools = maxima.shape[1]
        if chosen is None:
            if number and pools < 2 * count:
                continue
            candidates, ratio = maxima.transpose(1, 2), 0
        else:
            ratio = above // size
            where = chosen.transpose(1, 2)[:, :, None].expand(n, count, ratio, rows)
            found = maxima.view(n, -1, ratio, rows).gather(1, where)
            candidates = found.permute(0, 3, 1, 2).reshape(n, rows, count * ratio)
        best = most(candidates.reshape(n * rows, -1), count).view(n, rows, count)
        values = candidates.gather(2, best) if size == 1 else candidates
        if chosen is not None:
            names = (chosen[..., None] * ratio + torch.arange(ratio, device=chosen.device)).flatten(2)
            best = names.gather(2, best)
        chosen, above = best, size
    assert chosen is not None
    return values, chosen


def most(values: Float[Tensor, "rows width"], count: int) -> Int64[Tensor, "rows count"]:
    """Where the `count` largest values of every row are, in no order."""
    width = values.shape[1]
    if width <= count:
        return torch.arange(width, device=values.device).expand(len(values), -1)
    if values.device.type == "cpu" and torch.get_num_threads() <= FEW_THREADS:
        return torch.from_numpy(np.argpartition(values.numpy(), width - count, axis=1)[:, width - count :])
    return values.topk(count, dim=1, sorted=False).indices


def in_order(
    scores: Float[Tensor, "*rows n"], keys: Int64[Tensor, "*rows n"]
) -> tuple[Float[Tensor, "*rows n"], Int64[Tensor, "*rows n"]]:
    """In falling order; of equal scores the earlier in the list first."""
    scores, places = scores.sort(dim=-1, descending=True, stable=True)
    return scores, keys.gather(-1, places)


def filled(keys: Int64[Tensor, "*rows n"], empty: Bool[Tensor, "*rows n"]) -> Int64[Tensor, "*rows n"]:
    """The empty places of lists of keys, which come last, filled with the first keys that a list does not have."""
    places = torch.arange(keys.shape[-1], device=keys.device)
    taken = ((keys[..., None, :] == places[:, None]) & ~empty[..., None, :]).any(-1)
    free = taken.to(torch.int8).sort(dim=-1, stable=True).indices
    nth = (empty.cumsum(-1) - 1).clamp(min=0)
    return torch.where(empty, free.gather(-1, nth), keys)
