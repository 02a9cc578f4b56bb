"""What of the weights mattered for an output: gradient times attention, and relevance through all layers.

With `values = P v` the gradient of an output with respect to a weight is `∂y/∂p_ij = ∂y/∂values_i · v_j`. So the
gradient of what attention returned is enough, and nothing of the size queries x keys has to be kept from the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headscope.attention.request import Request
from headscope.errors import LookError
from headscope.look import statistics
from headscope.look.kernels.gather import chosen
from headscope.look.kernels.tiles import wide
from headscope.look.positions import Positions, positions
from headscope.shapes import shape

# Weights, over all heads, that are held at once.
BLOCK = 2**22


def gradient_times_weights(
    request: Request, gradient: Float[Tensor, "b h q e"], rows: Int64[Tensor, " r"], columns: Int64[Tensor, " c"]
) -> Float[Tensor, "b h r c"]:
    """`p_ij · ∂y/∂p_ij` of chosen queries and keys: by how much each weight raised y, to first order.

    Args:
        gradient: `∂y/∂values`, of what attention returned.

    Raises:
        LookError: the gradient has another shape than what attention returned.

    Source: gradient x input, of the weights; the matrices of Chefer et al. 2021.
    """
    check(request, gradient)
    with torch.no_grad():
        return product(request, gradient, statistics.lse(request), rows, columns)


def product(request: Request, gradient: Tensor, lse: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The same of a call whose lse is known."""
    v = wide(request.v)[:, :, columns.to(request.v.device)]
    v = v.repeat_interleave(request.q.shape[1] // v.shape[1], 1)
    asked = gradient[:, :, rows.to(gradient.device)].to(v)
    return chosen(request, lse, rows, columns) * (asked @ v.mT)


def relevance(
    layers: Sequence[Request], gradients: Sequence[Float[Tensor, "1 h q e"]], chosen: Positions = None
) -> Float[Tensor, "c k"]:
    """How much each input position mattered for y at chosen positions of the last layer: rows of `Π_l (I + Ā_l)`.

    `Ā = mean_h max(0, P ⊙ ∂y/∂P)`. From the last layer to the first a row r becomes `r + r Ā`, in blocks of queries, so
    that no matrix of queries x keys exists.

    Args:
        layers: the attention calls of one batch item with their values, first layer first, all over the same positions.
        gradients: for each of them `∂y/∂values`, of what attention returned.
        chosen: positions of the last layer, such as that of [CLS]; all of them unless chosen.

    Shapes:
        returns `(chosen, positions)`. The chosen position itself has the 1 of the identity beside its relevance.

    Raises:
        LookError: no layers, another number of gradients, or a layer or gradient that does not fit.

    Source: Chefer et al. 2021, "Generic Attention-model Explainability", the rules of self-attention.

    Example:
        >>> q = torch.zeros(1, 1, 2, 4)
        >>> v = torch.tensor([[[[1.0], [-1.0]]]])
        >>> relevance([Request(q, q, v)], [torch.ones(1, 1, 2, 1)], 0).tolist()  # key 0 raised y by 0.5
        [[1.5, 0.0]]
    """
    if not layers or len(layers) != len(gradients):
        raise LookError(
            f"relevance: {len(layers)} layers and {len(gradients)} gradients; give one or more layers, and one "
            "gradient for each."
        )
    count = layers[0].q.shape[2]
    rows = positions("position", chosen, count)
    first = wide(layers[0].q)
    found = first.new_zeros(len(rows), count)
    found[torch.arange(len(rows)), rows] = 1.0
    for number, (layer, gradient) in enumerate(zip(layers, gradients, strict=True)):
        check(layer, gradient)
        if layer.q.shape[0] != 1 or layer.q.shape[2] != count or layer.k.shape[2] != count:
            raise LookError(
                f"relevance: layer {number} has {layer.q.shape[0]} items, {layer.q.shape[2]} queries and "
                f"{layer.k.shape[2]} keys; give the layers of self-attention of one item, all over {count} positions."
            )
    with torch.no_grad():
        for layer, gradient in zip(reversed(layers), reversed(gradients), strict=True):
            found = found + through(layer, gradient, found)
    return found


def through(layer: Request, gradient: Tensor, found: Float[Tensor, "c k"]) -> Float[Tensor, "c k"]:
    """`found · Ā` of one layer, a block of its queries at a time."""
    queries, keys = layer.q.shape[2], layer.k.shape[2]
    lse, columns = statistics.lse(layer), torch.arange(keys)
    step = max(1, BLOCK // max(1, layer.q.shape[1] * keys))
    moved = torch.zeros_like(found)
    for rows in torch.split(torch.arange(queries), step):
        mattered = product(layer, gradient, lse, rows, columns)[0].clamp_min(0.0).mean(0)
        moved += found[:, rows.to(found.device)] @ mattered.to(found)
    return moved


def check(request: Request, gradient: Tensor) -> None:
    """Raise `LookError` unless the gradient is that of what attention returned."""
    wanted = (*request.q.shape[:3], request.v.shape[3])
    if shape(gradient) != wanted:
        raise LookError(
            f"relevance: a gradient is {shape(gradient)} and attention returned {wanted}; give the gradient of what it "
            "returned, before the output projection."
        )
