"""The call behind attention that is written out by hand: its q and k, where they explain its weights; else the weights.

Scores are a scaled product and something that is added. Scale and product are known from what was followed, so what was
added is the difference: a mask, one number for each key, a table for each head. It is kept as small as it can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from headscope.attention.masks.tensors import runs_of, split
from headscope.calls.by_hand.pairs import Pair
from headscope.calls.by_hand.products import arranged, plane, roles, sizes
from headscope.calls.call import Call, from_weights
from headscope.compat.torch import version_of
from headscope.shapes import acc_dtype

# Rows of every head that are compared with the model's own weights.
ROWS = 16
# A row in which every key is masked with a number below -MASKED is as if it were not masked; below -SWALLOWS nothing is
# left of its scores in float32, and models mean a row that sees nothing.
MASKED, SWALLOWS = 100.0, 1e8


class Axes(NamedTuple):
    """Which of the leading axes of weights are those of the batch, and which those of the heads."""

    batch: tuple[int, ...]
    heads: tuple[int, ...]
    fused: int | None = None

    def four(self, x: Tensor) -> Tensor:
        """`(..., n, m)` as `(b, h, n, m)`."""
        last = x.shape[-2:]
        if self.fused is not None:
            return x.reshape(-1, self.fused, *last)
        x = x.permute(*self.batch, *self.heads, -2, -1)
        leading, b = x.shape[:-2], 1
        for size in leading[: len(self.batch)]:
            b *= size
        h = leading[len(self.batch) :].numel()
        return x.reshape(b, h, *last)

    def back(self, x: Tensor, leading: tuple[int, ...]) -> Tensor:
        """`(b, h, n, m)` with leading axes of these sizes again: undoes `four`."""
        last = x.shape[-2:]
        if self.fused is not None:
            return x.reshape(*leading, *last)
        order = (*self.batch, *self.heads)
        x = x.reshape(*(leading[axis] for axis in order), *last)
        return x.permute(*(order.index(axis) for axis in range(len(leading))), -2, -1)


def axes_of(pair: Pair, heads: int | None, inputs: Iterable[object] = ()) -> Axes | None:
    """Which leading axes are the batch and which the heads; None where that is unknown.

    Args:
        heads: how many heads the calling module has, by its attributes; None where it has none of these.
        inputs: its arguments; without such an attribute their sizes decide which part of a single leading axis is the
            batch.
    """
    leading = tuple(pair.weights.shape[:-2])
    every = tuple(range(len(leading)))
    if len(leading) < 2:
        if not leading or pair.part or (heads and leading[0] % heads):
            return Axes(every, ())
        heads = heads or heads_by_size(pair.weights, inputs)
        return Axes((), (), heads) if heads else None
    if heads is None:
        return Axes(every[:-1], every[-1:]) if len(leading) > 2 else Axes((0,), (1,))
    equal = [axis for axis in every if leading[axis] == heads]
    if not equal and leading[-1] * leading[-2] == heads:
        return Axes(every[:-2], every[-2:])
    axis = 1 if not equal or 1 in equal else equal[-1]
    return Axes(tuple(one for one in every if one != axis), (axis,))


def heads_by_size(weights: Tensor, inputs: Iterable[object]) -> int | None:
    """How many of the `n` in weights `(n, q, k)` belong to one item of the batch; None where no input decides it.

    An input with as many positions as there are queries or keys shows how large the batch is.
    """
    n, *positions = weights.shape
    for x in inputs:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            continue
        for batch, count in layouts(x, positions[0]):
            if count in positions and batch and n and n % batch == 0:
                return n // batch
    return None


def layouts(x: Tensor, queries: int) -> Iterator[tuple[int, int]]:
    """How large the batch may be in an input, and how many positions there are then.

    Shapes:
        `(b, ..., m)`, `(b, m, ...)` as pictures are, `(positions, b, m)`; `(b, m)` for one query, `(positions, m)`.
    """
    if x.ndim == 2 and queries in (1, len(x)):
        yield (len(x), 1) if queries == 1 else (1, len(x))
    if x.ndim > 2:
        yield len(x), x.shape[1:-1].numel()
        yield len(x), x.shape[2:].numel()
    if x.ndim == 3:
        yield x.shape[1], len(x)


def call_of(pair: Pair, axes: Axes) -> Call:
    """The call of weights and values that were multiplied."""
    weights, v = axes.four(pair.weights), axes.four(pair.values)
    found = recovered(pair, axes.four, weights, v)
    return from_weights(weights, v) if found is None else found


def recovered(pair: Pair, four: Callable[[Tensor], Tensor], weights: Tensor, v: Tensor) -> Call | None:
    """The call with the model's own q and k; None where scores were changed in ways that a call does not have."""
    origin, known = pair.origin, pair.origin.known
    scores = origin.scores
    changed = origin.version is not None and origin.version != version_of(scores)
    if known.raised or changed or known.ramp is None or scores.numel() != weights.numel():
        return None
    batch = [axis for axis in range(scores.ndim) if axis not in (origin.rows, origin.keys)]
    scores = scores.permute(*batch, origin.rows, origin.keys)
    leading = pair.weights.shape[:-2]
    if scores.shape[-2:] != pair.weights.shape[-2:]:
        return None
    s = four(scores.reshape(*leading, *scores.shape[-2:]))
    factors = factors_of(pair)
    if any(x.shape[:-2].numel() != leading.numel() for x in factors):
        return None
    q, k = (four(x.reshape(*leading, *x.shape[-2:])) for x in factors)
    if (q.shape[2], k.shape[2]) != tuple(s.shape[2:]):
        return None
    return explained(q, k, v, s, weights, known.scale, additive=known.additive)


def factors_of(pair: Pair) -> tuple[Tensor, Tensor]:
    """The q and the k of the product that weights came from: `(..., q, d)` and `(..., k, d)`."""
    known, keys = pair.origin.known, pair.origin.keys
    letters = plane(known.product)
    assert letters is not None
    assert known.ramp is not None
    size, output = sizes(known.product), known.product.letters[2]
    batch = "".join(c for c in output if c not in letters)
    summed = roles(known.product, 0)
    assert summed is not None
    found = []
    for x, own, row in zip((known.product.left, known.product.right), known.product.letters, letters, strict=False):
        rows = arranged(x, own, batch + row + summed.summed).flatten(len(batch) + 1)
        found.append(rows.expand(*(size[c] for c in batch), *rows.shape[-2:]))
    if known.ramp.shape[keys] > 1 and known.ramp.stride(keys) != 1:
        found.reverse()
    return found[0], found[1]


def explained(
    q: Tensor, k: Tensor, v: Tensor, scores: Tensor, weights: Tensor, scale: float, *, additive: bool
) -> Call | None:
    """The call with these q and k and with what the scores have beyond their product; checked by its weights."""
    real = acc_dtype(scores.dtype)
    product = scale * (q.to(real) @ k.to(real).mT)
    allowed, added = split(lifted(scores.to(real) - product))
    size = float(product.detach().abs().amax()) if product.numel() else 0.0
    eps = max(torch.finfo(x.dtype).eps for x in (q, k, scores))
    tolerance = 8 * eps * max(1.0, size)
    closeness = 5e-6 if eps < 1e-6 else 2e-3
    few = narrow(allowed, (0, 1, 2))
    for bias in biases(added, allowed, tolerance):
        if bias is not None and not additive and bias.shape[1] == scores.shape[1] > 1:
            return None
        if gives(product if bias is None else product + bias, allowed, weights, closeness):
            return Call(q, k, v, None if bool(few.all()) else runs_of(few), bias, scale)
    return None


def lifted(added: Tensor) -> Tensor:
    """What is added, where every key of a row is masked with a large number: the row sees nothing, or all as it is.

    A number as large as that swallows the scores, or the fraction of them that a weight depends on.
    """
    if not added.shape[-1]:
        return added
    top = added.amax(-1, keepdim=True)
    added = torch.where(top < -MASKED, added - top, added)
    return added.masked_fill(top < -SWALLOWS, torch.finfo(added.dtype).min)


def biases(added: Tensor | None, allowed: Tensor, tolerance: float) -> Iterator[Tensor | None]:
    """What may be added to a product to give scores: as small as can be, then every number as it is."""
    if added is None or float(added.abs().amax()) <= tolerance:
        yield None
    if added is not None:
        yield small(added, allowed, tolerance)
        yield added


def gives(scores: Tensor, allowed: Tensor, weights: Tensor, closeness: float) -> bool:
    """Whether scores give these weights, in some rows of every head; rows that see nothing are left out."""
    rows = torch.linspace(0, scores.shape[2] - 1, min(ROWS, scores.shape[2]), device=scores.device).long()
    seen = allowed[:, :, rows]
    mine = scores[:, :, rows].masked_fill(~seen, -torch.inf).softmax(-1)
    apart = (mine - weights[:, :, rows].to(mine.dtype)).abs().masked_fill(~seen.any(-1, keepdim=True), 0.0)
    return bool((apart <= closeness).all())


def narrow(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """A tensor with one slice where all slices along an axis are equal."""
    for axis in axes:
        first = x.narrow(axis, 0, min(1, x.shape[axis]))
        x = first if bool((x == first).all()) else x
    return x


def small(added: Tensor, allowed: Tensor, tolerance: float) -> Tensor | None:
    """What is added to scores, of size 1 along every axis where it is the same wherever it counts; None for nothing."""
    for axis in (0, 1, 2):
        low, high = ends(added, allowed, axis)
        if bool((high - low <= tolerance).all()):
            allowed = allowed.any(axis, keepdim=True)
            added = (0.5 * (low + high)).masked_fill(~allowed, 0.0)
    low, high = ends(added, allowed, 3)
    # The same for every key of a row changes no weight.
    return None if bool((high - low <= tolerance).all()) else added


def ends(added: Tensor, allowed: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The smallest and the largest number along an axis, among those that count."""
    low = added.masked_fill(~allowed, torch.inf).amin(axis, keepdim=True)
    return low, added.masked_fill(~allowed, -torch.inf).amax(axis, keepdim=True)
