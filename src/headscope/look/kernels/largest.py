"""The largest scores of every query of a block, found through the maxima of pools of neighbouring keys."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# Keys in one pool of the lowest level, and pools of a level in one of the next.
POOL = 8
# With more threads than this torch's topk, which shares rows among them, is faster than numpy's sort, which does not; for
# few and short rows numpy takes a fifth of the time.
FEW_THREADS = 3
# The bits of a float64 that a float32 leaves free.
NAME = 2**29 - 1


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
    levels: Sequence[Tensor], count: int
) -> tuple[Float[Tensor, "n rows count"], Int64[Tensor, "n rows count"]]:
    """The `count` largest scores of every query in falling order, and the places that have them.

    The largest scores lie in the pools with the largest maxima, and these in the larger pools with the largest: a
    descent that looks at `count` pools of each level.

    Args:
        levels: the maxima of pools, `(n, rows, pools)`, in falling number; the first level is the scores themselves. The
            pools below pool p are p, p + pools, p + 2 pools, …
    """
    while len(levels) > 1 and levels[-1].shape[2] < 2 * count:
        levels = levels[:-1]
    top = levels[-1]
    pools = top.shape[2]
    values, chosen = most(top, torch.arange(pools, device=top.device), count)
    for level in reversed(levels[:-1]):
        parts = level.unflatten(2, (-1, pools))
        ratio = parts.shape[2]
        candidates = parts.gather(3, chosen[:, :, None].expand(-1, -1, ratio, -1))
        names = chosen[:, :, None] + torch.arange(0, ratio * pools, pools, device=top.device)[:, None]
        values, chosen = most(candidates.flatten(2), names.flatten(2), count)
        pools = level.shape[2]
    return values, chosen


def most(
    values: Float[Tensor, "n rows width"], names: Int64[Tensor, "*n_rows width"], count: int
) -> tuple[Float[Tensor, "n rows count"], Int64[Tensor, "n rows count"]]:
    """The `count` largest values of every row in falling order, and their names, which are below 2²⁸.

    A float32 leaves 29 bits of a float64 free. There the name goes, and numbers are sorted that know who they are.
    """
    if values.dtype == torch.float64:
        values, places = values.topk(count)
        return values, names.expand(*places.shape[:2], -1).gather(2, places)
    named = values.double()
    named.view(torch.int64).bitwise_or_(names)
    if named.device.type == "cpu" and torch.get_num_threads() <= FEW_THREADS:
        named.numpy().sort(axis=2)
        named = named[..., -count:].flip(2)
    else:
        named = named.topk(count).values
    return named.float(), named.view(torch.int64) & NAME


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
