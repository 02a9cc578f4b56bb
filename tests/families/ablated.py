"""Does `hs.ablate` do what zeroing a head's rows of the output projection does, in the model itself?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import headscope as hs
from headscope.errors import ModelError
from headscope.recording.layer import Layer
from headscope.recording.output_projection import output_projection


class Ablated(NamedTuple):
    """A head of the first, the middle and the last layer taken out in both ways.

    Attributes:
        gap: the largest difference between the two outputs, relative to the largest number in them; None where no
            output projection was found, the heads change no output, or ablation is refused.
        note: why there is nothing to compare.
    """

    gap: float | None = None
    note: str = ""


def ablated(model: Any, inputs: dict[str, Any], layers: list[Layer]) -> Ablated:
    """Compare both ways on one model."""
    rows: dict[tuple[int, int], Tensor] = {}
    for layer in chosen(layers):
        head = (7 * layer.number + 1) % layer.heads
        try:
            rows[layer.number, head] = output_projection(model, layer, head)
        except ModelError:
            continue
    if not rows:
        return Ablated(note="no output projection to zero by hand")
    before = outputs(model, inputs)
    with zeroed(list(rows.values())):
        wanted = outputs(model, inputs)
    try:
        with hs.ablate(model, list(rows)):
            mine = outputs(model, inputs)
    except ModelError as error:
        return Ablated(note=f"ablate refuses: {str(error).partition(': it is ')[2].partition('. ')[0]}")
    size = max((float(x.abs().max()) for x in wanted if x.numel()), default=0.0) + 1e-12
    pairs = zip(mine, wanted, strict=True)
    gap = max((float((a - b).abs().max()) for a, b in pairs if a.numel()), default=0.0) / size
    changed = any(not torch.equal(a, b) for a, b in zip(before, wanted, strict=True))
    return Ablated(gap) if changed else Ablated(note="these heads change no output")


def chosen(layers: list[Layer]) -> list[Layer]:
    """The first, the middle and the last layer by number, of those with values."""
    by = {layer.number: layer for layer in layers if layer.heads and layer.v is not None}
    numbers = sorted(by)
    return [by[number] for number in dict.fromkeys((numbers[0], numbers[len(numbers) // 2], numbers[-1]))] if by else []


@contextmanager
def zeroed(parts: list[Tensor]) -> Iterator[None]:
    """Parts of a model's weights are zero for the time of a block."""
    copies = [x.clone() for x in parts]
    try:
        for x in parts:
            x.zero_()
        yield
    finally:
        for x, copy in zip(parts, copies, strict=True):
            x.copy_(copy)


def outputs(model: Any, inputs: dict[str, Any]) -> list[Tensor]:
    """Every tensor of finite floating point numbers in the output."""
    torch.manual_seed(0)
    with torch.no_grad():
        output = model(**inputs)
    found = tuple(output.values()) if hasattr(output, "values") else output
    return [x.nan_to_num() for x in tree_leaves(found) if isinstance(x, Tensor) and x.is_floating_point()]
