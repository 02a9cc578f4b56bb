"""The largest scores of every query of a block, found through the maxima of pools of neighbouring keys."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# Keys in one pool of the lowest level, and pools of a level in one of the next.
POOL = 8
# With more threads than this torch's topk, which shares rows among them, is faster than numpy's sort, which does not;
# with one, numpy takes a fifth of the time.
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
    below = POOL if width % POOL == 0 else 4 if width % 4 == 0 else None
    # A step of the descent costs as much as some hundred candidates.
    sizes = [width] if below is None or width <= 2 * POOL else [below, width]
    return sizes if width >= POOL * POOL else [*sizes, width * POOL]


class Largest:
    """Finds the `count` largest scores of every query of a block, and the places that have them.

    They lie in the pools with the largest maxima, and these in the larger pools with the largest: a descent that looks
    at `count` pools of each level.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.tables: dict[tuple[int, int], Tensor] = {}

    def __call__(
        self, levels: Sequence[Tensor], count: int
    ) -> tuple[Float[Tensor, "n rows count"], Int64[Tensor, "n rows count"]]:
        """In falling order.

        Args:
            levels: the maxima of pools, `(n, rows, pools)`, in falling number; the first are the scores themselves.
                Below pool p are the pools p, p + pools, p + 2 pools, …
        """
        while len(levels) > 1 and levels[-1].shape[2] < 2 * count:
            levels = levels[:-1]
        candidates = levels[-1]
        n, rows, pools = candidates.shape
        names = self.below(1, pools)[0]
        for level in reversed(levels[:-1]):
            _, chosen = most(candidates, names, count)
            names = self.below(pools, level.shape[2]).index_select(0, chosen.flatten()).view(n, rows, -1)
            candidates, pools = level.gather(2, names), level.shape[2]
        values, chosen = most(candidates, names, count)
        return values.flip(2).to(candidates.dtype), chosen.flip(2)

    def below(self, pools: int, parts: int) -> Int64[Tensor, "pools ratio"]:
        """The numbers of the parts of every pool."""
        if (pools, parts) not in self.tables:
            numbers = torch.arange(parts, device=self.device)
            self.tables[pools, parts] = numbers.view(-1, pools).t().contiguous()
        return self.tables[pools, parts]


def most(
    values: Float[Tensor, "n rows width"], names: Int64[Tensor, "*n_rows width"], count: int
) -> tuple[Float[Tensor, "n rows count"], Int64[Tensor, "n rows count"]]:
    """The `count` largest values of every row in rising order, and their names, which are below 2²⁸.

    A float32 leaves 29 bits of a float64 free. There the name goes, and the numbers that are sorted know who they are;
    as float32 they are themselves again.
    """
    if values.dtype == torch.float64:
        largest, places = values.topk(count)
        return largest.flip(2), names.expand(values.shape).gather(2, places).flip(2)
    named = values.double()
    named.view(torch.int64).bitwise_or_(names)
    if named.device.type == "cpu" and torch.get_num_threads() <= FEW_THREADS:
        named.numpy().sort(axis=2)
        named = named[..., -count:]
    else:
        named = named.topk(count).values.flip(2)
    return named, named.view(torch.int64) & NAME


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
