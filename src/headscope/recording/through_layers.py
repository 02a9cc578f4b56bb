"""What runs through all layers of a recording: rollout and relevance, and which layers they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from headscope.attention.request import Request
from headscope.errors import LookError
from headscope.look import relevance as relevances
from headscope.look.positions import Positions
from headscope.look.rollout import rollout
from headscope.recording.layer import Layer


class RolloutLayer(NamedTuple):
    """A recorded layer, whether rollout and relevance use it, and why not where they do not."""

    layer: int
    name: str
    used: bool
    why: str


def rollout_layers(numbers: Sequence[int], layers: Sequence[Layer]) -> list[RolloutLayer]:
    """For each layer whether it is one of those that lead to the last one, position by position.

    Those are self- and joint attention from all positions to all, over as many as the last such layer has.
    """
    square = [layer.kind != "cross" and layer.q.shape[2] == layer.k.shape[2] for layer in layers]
    last = next((one for one, fits in zip(reversed(layers), reversed(square), strict=True) if fits), None)
    count = 0 if last is None else last.q.shape[2]
    found = []
    for number, layer, fits in zip(numbers, layers, square, strict=True):
        queries, keys = layer.q.shape[2], layer.k.shape[2]
        why = ""
        if layer.kind == "cross":
            why = "cross-attention: its keys are positions of another sequence"
        elif not fits:
            why = f"{queries} of {keys} positions were recorded as queries"
        elif queries != count:
            why = f"{queries} positions, and the last layer has {count}"
        elif last is not None and cells_of(layer) != cells_of(last):
            why = "its positions are windows of the picture that are not those of the last layer"
        found.append(RolloutLayer(number, layer.name, not why, why))
    return found


def cells_of(layer: Layer) -> list[tuple[int, int] | tuple[int | None, ...]]:
    """Which patches the windows of a picture hold, and of which grid; empty where positions are no windows."""
    return [part for axis in layer.keys if axis.cells is not None for part in (axis.grid or (0, 0), axis.cells)]


def rolled_out(numbers: Sequence[int], layers: Sequence[Layer], chosen: Positions, item: int) -> Tensor:
    """`look.rollout` of the layers that count."""
    used = those_used(numbers, layers, "rollout")
    return rollout([layer.request(item) for layer in used], chosen)


def relevance_of(
    numbers: Sequence[int], layers: Sequence[Layer], target: Tensor, chosen: Positions, item: int
) -> Tensor:
    """`look.relevance` of the layers that count, with the gradients of a number that the model computed."""
    used = those_used(numbers, layers, "relevance")
    gradients = gradients_of("relevance", used, target)
    one = slice(item, item + 1)
    return relevances.relevance([with_values(layer, item) for layer in used], [g[one] for g in gradients], chosen)


def gradient_times_weights(layer: Layer, row: int, target: Tensor, item: int) -> Tensor:
    """`p_ij · ∂target/∂p_ij` of all queries and keys of one head."""
    (gradient,) = gradients_of("gradient_times_weights", [layer], target)
    request = with_values(layer, item)
    group = row // (layer.heads // layer.k.shape[1])
    one, rows, keys = slice(item, item + 1), torch.arange(layer.q.shape[2]), torch.arange(layer.k.shape[2])
    head = layer.scoring(one, slice(row, row + 1)).request(
        request.q[:, row : row + 1], request.k[:, group : group + 1], request.v[:, group : group + 1]
    )
    return relevances.gradient_times_weights(head, gradient[one, row : row + 1], rows, keys)[0, 0]


def those_used(numbers: Sequence[int], layers: Sequence[Layer], what: str) -> list[Layer]:
    """The layers that count.

    Raises:
        LookError: there are none.
    """
    about = rollout_layers(numbers, layers)
    used = [layer for layer, one in zip(layers, about, strict=True) if one.used]
    if not used:
        reasons = "; ".join(sorted({one.why for one in about})) or "nothing was recorded"
        raise LookError(f"{what}: no recorded layer leads from all positions to all positions: {reasons}.")
    return used


def with_values(layer: Layer, item: int) -> Request:
    """The call of one item with its values."""
    one = slice(item, item + 1)
    assert layer.v is not None
    return layer.scoring(one, slice(0, layer.heads)).request(
        layer.q[one].detach(), layer.k[one].detach(), layer.v[one].detach()
    )


def gradients_of(what: str, layers: Sequence[Layer], target: Tensor) -> list[Tensor]:
    """`∂target/∂output` of what each layer's attention returned; zeros where the target does not depend on it.

    Raises:
        LookError: the target is not one number, or it or the layers are not in the graph of autograd.
    """
    there = [layer.output for layer in layers if layer.output is not None and layer.v is not None]
    if len(there) < len(layers):
        raise LookError(
            f"{what}: what attention returned is not in the recording; record with hs.record(model, grad=True), and "
            "keep values=True."
        )
    if target.numel() != 1 or not target.requires_grad:
        raise LookError(
            f"{what}: the target is {tuple(target.shape)} and {'has' if target.requires_grad else 'needs'} a graph of "
            "autograd; give one number that the model computed, such as logits[0, label], without no_grad."
        )
    return list(torch.autograd.grad(target, there, retain_graph=True, materialize_grads=True))
