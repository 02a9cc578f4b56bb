"""Attention rollout: where the information at a position of the last layer came from, through all layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.attention.request import Request
from headscope.errors import LookError
from headscope.look.kernels.ask import Ask
from headscope.look.kernels.stream import stream
from headscope.look.kernels.tiles import wide
from headscope.look.positions import Positions, positions


def rollout(layers: Sequence[Request], chosen: Positions = None) -> Float[Tensor, "c k"]:
    """The rows of `Π_l (½ I + ½ mean_h P_l)` for chosen positions of the last layer: for each its sources in the input.

    From the last layer to the first a row r becomes `½ r + ½ mean_h r P_h`; a product of a row with the weights is one
    pass over blocks, so no matrix of queries x keys exists.

    Args:
        layers: the attention calls of one batch item, first layer first: self-attention over the same positions.
        chosen: positions of the last layer; all of them unless chosen.

    Shapes:
        returns `(chosen, positions)`; each row sums to 1 where every query sees something.

    Raises:
        LookError: no layers, a layer that is not self-attention of one item, or a position that does not exist.

    Source: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers".

    Example:
        >>> import torch
        >>> q = torch.zeros(1, 2, 3, 8)
        >>> rollout([Request(q, q, q)], 0)  # half stays, half is spread over three equal keys
        tensor([[0.6667, 0.1667, 0.1667]])
    """
    if not layers:
        raise LookError("rollout: there are no layers; record a model first.")
    count = layers[0].q.shape[2]
    for number, layer in enumerate(layers):
        if layer.q.shape[0] != 1 or layer.q.shape[2] != count or layer.k.shape[2] != count:
            raise LookError(
                f"rollout: layer {number} has {layer.q.shape[0]} items, {layer.q.shape[2]} queries and "
                f"{layer.k.shape[2]} keys; give the layers of self-attention of one item, all over {count} positions."
            )
    rows = positions("position", chosen, count)
    found = wide(layers[0].q[:0]).new_zeros(len(rows), count)
    found[torch.arange(len(rows)), rows] = 1.0
    for layer in reversed(layers):
        mixed = stream(layer, Ask(mix=found)).mixed
        assert mixed is not None
        found = (found + mixed[0].mean(0).to(found)) / 2
    return found
