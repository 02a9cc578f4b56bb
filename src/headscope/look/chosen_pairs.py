"""The weights of chosen pairs of plain `(b, h, q, d)` tensors, and what each of them did for an output."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from headscope.attention.bias import Bias
from headscope.attention.masks.mask import Mask
from headscope.look import relevance, statistics
from headscope.look.positions import Positions, positions
from headscope.look.scoring import Scoring


def weights(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    queries: Positions = None,
    keys: Positions = None,
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " h"] | None = None,
) -> Float[Tensor, "b h rows columns"]:
    """The weights of chosen queries on chosen keys: every one of them unless chosen. Differentiable.

    Memory: the chosen weights, and their scores.

    Args:
        queries, keys: a position, a slice, a list of positions, or None for all.

    Raises:
        LookError: a position that does not exist.

    Example:
        >>> import torch, headscope as hs
        >>> hs.look.weights(torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 4, 8), 0, [1, 3]).tolist()
        [[[[0.25, 0.25]]]]
    """
    rows, columns = positions("query", queries, q.shape[2]), positions("key", keys, k.shape[2])
    return statistics.weights(
        Scoring(mask, bias, scale, softcap, sinks).request(q, k, where="look.weights"), rows, columns
    )


def gradient_times_weights(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    gradient: Float[Tensor, "b h q e"],
    queries: Positions = None,
    keys: Positions = None,
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " h"] | None = None,
) -> Float[Tensor, "b h rows columns"]:
    """Gradient times attention, `p_ij · ∂y/∂p_ij`: by how much each weight raised an output y, to first order.

    Memory: the chosen weights.

    Args:
        gradient: `∂y/∂values`, the gradient of y with respect to what attention returned.
        queries, keys: as in `weights`.

    Raises:
        LookError: a position that does not exist, or a gradient of another shape.

    Source: the matrices of Chefer et al. 2021; `∂y/∂p_ij = ∂y/∂values_i · v_j`.

    Example:
        >>> import torch, headscope as hs
        >>> q, v = torch.zeros(1, 1, 2, 4), torch.tensor([[[[1.0], [-1.0]]]])
        >>> hs.look.gradient_times_weights(q, q, v, torch.ones(1, 1, 2, 1), 0).tolist()
        [[[[0.5, -0.5]]]]
    """
    rows, columns = positions("query", queries, q.shape[2]), positions("key", keys, k.shape[2])
    request = Scoring(mask, bias, scale, softcap, sinks).request(q, k, v, where="look.gradient_times_weights")
    return relevance.gradient_times_weights(request, gradient, rows, columns)
