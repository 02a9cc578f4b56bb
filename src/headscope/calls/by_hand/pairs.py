"""The second product of attention: weights and the values that they are multiplied with."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from headscope.calls.by_hand.followed import Origin, Weights
from headscope.calls.by_hand.products import Product, arranged, roles


class Layout(NamedTuple):
    """The letters of the axes of the second product's output; the batch, the queries, the axes of values among them."""

    output: str
    batch: str
    row: str
    others: str


class Pair(NamedTuple):
    """Weights and the values that they were multiplied with.

    Shapes:
        weights `(..., q, k)`, values `(..., k, e)` with the same leading axes.

    Attributes:
        part: whether these are the weights of one head of several, and have no axis of heads.
    """

    weights: Tensor
    values: Tensor
    origin: Origin
    part: bool
    layout: Layout


def paired(product: Product, side: int, found: Weights) -> Pair | None:
    """Weights and values of a product that sums over the keys; None where it does not, or has no values."""
    axes = roles(product, side)
    if axes is None or len(axes.summed) != 1 or not axes.own:
        return None
    mine, theirs = product.letters[side], product.letters[1 - side]
    x, values = (product.left, product.right)[side], (product.left, product.right)[1 - side]
    axis = mine.index(axes.summed)
    length, strides = found.origin.scores.shape[found.origin.keys], found.ramp.stride()
    if found.clean.shape[axis] != length or (length > 1 and strides[axis] != found.keys):
        return None
    piece = (found.clean.storage_offset(), found.clean.shape, found.clean.stride())
    if piece in found.origin.taken or (found.changed and not proportional(x, found.clean, axis)):
        return None
    found.origin.taken.add(piece)
    # Of several axes that only the weights have one is that of the queries; the values are the same along the others.
    row = next(
        (c for c in axes.own if strides[mine.index(c)] == found.rows and x.shape[mine.index(c)] > 1), axes.own[-1]
    )
    batch = "".join(c for c in mine if c not in (row, axes.summed))
    weights = arranged(found.clean, mine, batch + row + axes.summed)
    values = arranged(values, theirs, batch + axes.summed + axes.others)
    values = values.flatten(len(batch) + 1) if axes.others else values[..., None]
    leading = torch.broadcast_shapes(weights.shape[:-2], values.shape[:-2])  # type: ignore[no-untyped-call]
    weights, values = (one.expand(*leading, *one.shape[-2:]) for one in (weights, values))
    return Pair(
        weights,
        values,
        found.origin,
        x.ndim < found.origin.scores.ndim and found.clean.numel() < found.origin.scores.numel(),
        Layout(product.letters[2], batch, row, axes.others),
    )


def proportional(x: Tensor, clean: Tensor, axis: int) -> bool:
    """Whether a tensor is weights with some of them taken out, and a row of them scaled: dropout, and nothing else."""
    x, clean = (one.detach().movedim(axis, -1) for one in (x, clean))
    ratio = (x / clean).float()
    kept = (x != 0) & (clean > 0)
    high = ratio.masked_fill(~kept, -torch.inf).amax(-1)
    low = ratio.masked_fill(~kept, torch.inf).amin(-1)
    return bool((high - low <= 0.05 * high.abs()).logical_or(high == -torch.inf).all())
