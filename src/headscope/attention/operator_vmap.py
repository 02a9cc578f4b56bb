"""How an operator of attention runs under `vmap`: one rule for the operators of all paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# The rule as `register_vmap` takes it: what is batched, and along which axis results are.
Rule = Callable[..., tuple[tuple[Tensor, ...], tuple[int, ...]]]
# For all items of a batch alike, and so are their gradients.
SHARED = ("bias", "sinks", "seed")


def by_samples(op: Any, names: tuple[str, ...]) -> Rule:
    """The rule of `vmap` for an operator with these arguments: samples become items of the batch, or run in turn.

    Args:
        names: its arguments; q is `(b, h, q, d)`, and every tensor but bias, sinks and seed begins with the batch.
    """

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        size = info.batch_size
        moved = {n: x if d is None else x.movedim(d, 0) for n, x, d in zip(names, args, in_dims, strict=True)}
        shared = {n: d is None for n, d in zip(names, in_dims, strict=True)}
        if any(moved[n] is not None for n in SHARED):
            samples = [op(*(x if shared[n] else x[i] for n, x in moved.items())) for i in range(size)]
            results = tuple(torch.stack(parts) for parts in zip(*samples, strict=True))
            return results, (0,) * len(results)
        items = moved["q"].shape[0 if shared["q"] else 1]
        for n, x in moved.items():
            if isinstance(x, Tensor):
                x = x.expand(size, *x.shape) if shared[n] else x
                # Runs may be for all items: then each sample repeats its own.
                moved[n] = (x.expand(-1, items, *x.shape[2:]) if n in ("start", "stop") else x).flatten(0, 1)
        apart = tuple(x.unflatten(0, (size, items)) if x.ndim > 1 else x.expand(size, -1) for x in op(*moved.values()))
        return apart, (0,) * len(apart)

    return rule
