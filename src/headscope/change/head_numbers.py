"""Heads by layer and number, checked against the call in which they are changed."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

from headscope.change.editor import Output
from headscope.errors import LookError

Heads = Iterable[tuple[int, int]]


def by_layer(where: str, heads: Heads) -> dict[int, list[int]]:
    """The numbers of the heads of each layer.

    Raises:
        LookError: no heads, a number below 0, or something else than pairs of whole numbers.
    """
    found: dict[int, list[int]] = defaultdict(list)
    for layer, head in pairs(where, heads):
        if layer < 0 or head < 0:
            raise LookError(f"{where}: head {layer}.{head}; layers and heads are counted from 0.")
        found[layer].append(head)
    if not found:
        raise LookError(f"{where}: no heads were given; give a list such as [(3, 1), (5, 11)].")
    return dict(found)


def pairs(where: str, heads: Heads) -> list[tuple[int, int]]:
    """Heads as pairs of Python's numbers.

    Raises:
        LookError: something else than pairs of whole numbers.
    """
    try:
        return [(operator.index(layer), operator.index(head)) for layer, head in heads]
    except (TypeError, ValueError):
        raise LookError(
            f"{where}: heads={heads!r}; give pairs (layer, head) of whole numbers, such as [(3, 1), (5, 11)]."
        ) from None


def check_size(where: str, values: Tensor, output: Output) -> None:
    """Raise `LookError` unless values that were recorded are as wide as those of this model's heads."""
    if values.shape[-1] != output.values.shape[3]:
        raise LookError(
            f"{where}: the heads of layer {output.layer} have {values.shape[-1]} features in the recording and "
            f"{output.values.shape[3]} here; record the same model."
        )


def chosen(where: str, output: Output, heads: list[int]) -> Tensor:
    """The heads of one layer as indices.

    Raises:
        LookError: a head that the layer does not have.
    """
    count = output.values.shape[1]
    wrong = [head for head in heads if head >= count]
    if wrong:
        raise LookError(
            f"{where}: head {wrong[0]} does not exist in layer {output.layer}; "
            f"there are {count}, from 0 to {count - 1}."
        )
    return torch.tensor(heads, device=output.values.device)
