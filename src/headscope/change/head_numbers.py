"""Heads by layer and number, checked against the call in which they are changed."""

from __future__ import annotations

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
        LookError: no heads, or a number below 0.
    """
    found: dict[int, list[int]] = defaultdict(list)
    for layer, head in heads:
        if layer < 0 or head < 0:
            raise LookError(f"{where}: head {layer}.{head}; layers and heads are counted from 0.")
        found[layer].append(head)
    if not found:
        raise LookError(f"{where}: no heads were given; give a list such as [(3, 1), (5, 11)].")
    return dict(found)


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
