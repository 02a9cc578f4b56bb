"""`importance`: how much a loss would change if a head were turned down, for every head at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headscope.change.editor import Editor, Output
from headscope.errors import LookError

Loss = Callable[[], Tensor]


def importance(model: nn.Module | object, loss: Loss | Iterable[Loss]) -> Float[Tensor, "layers heads"]:
    """`E |∂loss / ∂gate|` of every head, where a gate of 1 multiplies the head's output: one backward pass for all.

    An estimate of what `hs.ablate` measures head by head; `headscope ablate --each` shows both.

    Args:
        loss: runs the model and returns the loss, the mean over its batch; or several of these, one for each batch.

    Shapes:
        returns `(layers, heads)`; NaN where a layer has fewer heads than another. The expectation is over the batch
        items and the losses.

    Raises:
        LookError: there is no loss, the loss is no single number, or it does not depend on any head.
        ModelError: `model` is not a torch.nn.Module.

    Source: Michel et al. 2019, "Are Sixteen Heads Really Better than One?".

    Example:
        >>> import torch, headscope as hs
        >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
        >>> hs.importance(layer, lambda: layer(torch.ones(1, 3, 8)).square().mean()).shape
        torch.Size([1, 2])
    """
    several: Any = loss
    losses = list(several) if isinstance(several, Iterable) else [several]
    if not losses or not all(callable(one) for one in losses):
        raise LookError(
            "importance: no loss was given; give a function that runs the model and returns the loss, or several."
        )
    total: dict[int, Tensor] = {}
    for one in losses:
        for layer, found in gradients(model, one).items():
            total[layer] = total.get(layer, torch.zeros_like(found)) + found / len(losses)
    heads = max(len(found) for found in total.values())
    table = torch.full((max(total) + 1, heads), torch.nan)
    for layer, found in total.items():
        table[layer, : len(found)] = found
    return table


def gradients(model: nn.Module | object, loss: Loss) -> dict[int, Tensor]:
    """For each layer the sum over the batch of the absolute gradient of each head's gate."""
    gates: list[tuple[int, Tensor]] = []

    def edit(output: Output) -> Tensor:
        b, h = output.values.shape[:2]
        gate = torch.ones(b, h, 1, 1, device=output.values.device, dtype=output.values.dtype, requires_grad=True)
        gates.append((output.layer, gate))
        return output.values * gate

    with torch.enable_grad(), Editor("importance", model, edit):
        value: Any = loss()
    if not isinstance(value, Tensor) or value.numel() != 1:
        given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise LookError(f"importance: the loss is {given}, not a single number; return a tensor with one element.")
    if not gates or not value.requires_grad:
        raise LookError(
            "importance: the loss depends on no head; run the model inside the loss, and without torch.no_grad()."
        )
    found = torch.autograd.grad(value, [gate for _, gate in gates], allow_unused=True, materialize_grads=True)
    sums: dict[int, Tensor] = {}
    for (layer, _), gradient in zip(gates, found, strict=True):
        sums[layer] = sums.get(layer, torch.tensor(0.0)) + gradient.abs().sum(0).flatten().float().cpu()
    return sums
