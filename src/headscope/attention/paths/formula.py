"""The paper's equation, written out: `softmax(Q Kᵀ / √d) V`. The specification of every path, and their oracle.

Nothing here is clever: the whole matrix of weights is built. It runs in the dtype it is given; tests give it float64.

Source: Vaswani et al. 2017, "Attention Is All You Need", §3.2.1.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from headscope.attention.masks.mask import Mask
from headscope.attention.request import Request
from headscope.errors import MaskError
from headscope.shapes import check_qkv, shape

NAME = "formula"


def scores(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    *,
    scale: float,
    softcap: float | None = None,
    bias: Float[Tensor, "#b #h #q #k"] | None = None,
    allowed: Bool[Tensor, "#b #h #q #k"] | None = None,
) -> Float[Tensor, "b h q k"]:
    """`softcap·tanh(scale·q·k / softcap) + bias`, minus infinity where the query may not see the key.

    This is the one place that knows how a score is made. Head `i` reads the keys of group `i // (h / g)`.
    """
    b, h, queries, d = q.shape
    grouped = q.reshape(b, k.shape[1], h // k.shape[1] * queries, d)
    s = (grouped @ k.transpose(-2, -1)).reshape(b, h, queries, k.shape[2]) * scale
    if softcap is not None:
        s = softcap * torch.tanh(s / softcap)
    if bias is not None:
        s = s + bias
    if allowed is not None:
        s = s.masked_fill(~allowed, -math.inf)
    return s


def normalise(
    s: Float[Tensor, "b h q k"], sinks: Float[Tensor, " h"] | None = None
) -> tuple[Float[Tensor, "b h q k"], Float[Tensor, "b h q"]]:
    """Weights and lse of scores. A query that may see nothing gets weights of zero and an lse of minus infinity.

    A sink is one more logit in the denominator of every query of its head; no value belongs to it.
    """
    empty = s.isneginf().all(-1)
    # A row of minus infinities would give NaN gradients, so such a row is summed as zeros and put right afterwards.
    lse = s.masked_fill(empty[..., None], 0.0).logsumexp(-1)
    if sinks is not None:
        sink = sinks.to(s.dtype)[None, :, None].expand_as(lse)
        lse = torch.where(empty, sink, torch.logaddexp(lse, sink))
        return torch.exp(s - lse[..., None]), lse
    weights = torch.exp(s - lse.masked_fill(empty, 0.0)[..., None])
    return weights, lse.masked_fill(empty, -math.inf)


def apply(weights: Float[Tensor, "b h q k"], v: Float[Tensor, "b g k e"]) -> Float[Tensor, "b h q e"]:
    """The weighted sum of the values."""
    b, h, queries, keys = weights.shape
    return (weights.reshape(b, v.shape[1], h // v.shape[1] * queries, keys) @ v).reshape(b, h, queries, v.shape[3])


def refusals(request: Request) -> list[str]:
    """The formula runs everything that can be asked."""
    return []


def run(request: Request) -> tuple[Tensor, Tensor]:
    """Values and lse of a request, with the whole matrix of weights in between."""
    q, k = request.q.shape[2], request.k.shape[2]
    bias = None if request.bias is None else request.bias.block(slice(0, q), 0, k, q, k)
    s = scores(request.q, request.k, scale=request.scale, softcap=request.softcap, bias=bias, allowed=request.allowed())
    weights, lse = normalise(s, request.sinks)
    if request.dropout:
        weights = torch.nn.functional.dropout(weights, request.dropout)
    return apply(weights, request.v), lse


def scaled_dot_product(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    mask: Mask | Shaped[Tensor, "*sizes"] | None = None,
) -> tuple[Float[Tensor, "b h q e"], Float[Tensor, "b h q k"]]:
    """The textbook formula `softmax(Q Kᵀ / √d + mask) V`: the values, and the weights they were made with.

    For learning and for checking: it builds the whole (queries x keys) matrix. `hs.attend` gives the same values
    without it.

    Args:
        mask: a headscope mask; or a boolean tensor, True where a query may see a key; or a tensor that is added to the
            scores (0 where a query may see a key, minus infinity where not). It must broadcast to `(b, h, q, k)`.

    Shapes:
        q `(b, h, q, d)`, k `(b, g, k, d)`, v `(b, g, k, e)` → values `(b, h, q, e)`, weights `(b, h, q, k)`.

    Raises:
        ShapeError: q, k and v do not fit together.
        MaskError: the mask does not broadcast to `(b, h, q, k)`.

    Source: Vaswani et al. 2017, equation 1.

    Example:
        >>> x = torch.eye(3)[None, None]
        >>> values, weights = scaled_dot_product(x, x, x)
        >>> [round(w, 3) for w in weights[0, 0, 0].tolist()]
        [0.471, 0.264, 0.264]
    """
    check_qkv("scaled_dot_product", q, k, v)
    full = (*q.shape[:3], k.shape[2])
    bias = allowed = None
    if isinstance(mask, Mask):
        allowed = mask.to_dense(q.shape[2], k.shape[2], q.device)
    elif mask is not None:
        try:
            mask = mask.expand(full)
        except RuntimeError:
            raise MaskError(
                f"scaled_dot_product: the mask is {shape(mask)} and the scores are {full}; "
                "give a mask that broadcasts to them."
            ) from None
        if mask.dtype == torch.bool:
            allowed = mask
        elif mask.is_floating_point():
            bias = mask.to(q.dtype)
        else:
            raise MaskError(
                f"scaled_dot_product: the mask is {mask.dtype}; give booleans (True: may see), "
                "or numbers that are added to the scores."
            )
    weights, _ = normalise(scores(q, k, scale=q.shape[3] ** -0.5, bias=bias, allowed=allowed))
    return apply(weights, v), weights
