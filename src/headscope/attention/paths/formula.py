"""The formula path: the paper's equation with the whole matrix of weights. The specification of every path.

Source: Vaswani et al. 2017, "Attention Is All You Need", §3.2.1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from headscope.attention.equation import apply, attention, normalise, scores
from headscope.attention.masks.mask import Mask
from headscope.attention.precision import NO_KERNEL, autocast_dtype, autocast_off, cast, no_kernel
from headscope.attention.request import Request, default_scale
from headscope.errors import MaskError
from headscope.shapes import acc_dtype, check_qkv, shape

__all__ = ["NAME", "apply", "normalise", "refusals", "run", "scaled_dot_product", "scores"]

NAME = "formula"


def refusals(request: Request) -> list[str]:
    """The formula runs everything that can be asked, unless torch allows no kernel at all."""
    return [NO_KERNEL] if no_kernel(request.q.device) else []


def run(request: Request) -> tuple[Tensor, Tensor]:
    """Values and lse of a request, with the whole matrix of weights in between."""
    queries, keys = request.q.shape[2], request.k.shape[2]
    wide = acc_dtype(request.q.dtype)
    bias = None
    if request.bias is not None:
        bias = request.bias.whole(queries, keys, request.q.device, wide)
    with autocast_off(request.q):
        return attention(
            request.q,
            request.k,
            request.v,
            bias,
            request.sinks,
            scale=request.scale,
            softcap=request.softcap,
            allowed=request.allowed(),
            keep=request.dropout,
        )


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
        q `(b, h, q, d)`, k `(b, g, k, d)`, v `(b, g, k, e)` → values `(b, h, q, e)` in the dtype of q, weights
        `(b, h, q, k)` in float32 (float64 for float64).

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
    dtype = autocast_dtype(q)
    if dtype is not None:
        q, k, v = cast(q, dtype), cast(k, dtype), cast(v, dtype)
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
            bias = mask.to(acc_dtype(q.dtype))
        else:
            raise MaskError(
                f"scaled_dot_product: the mask is {mask.dtype}; give booleans (True: may see), "
                "or numbers that are added to the scores."
            )
    with autocast_off(q):
        weights, _ = normalise(scores(q, k, scale=default_scale(q), bias=bias, allowed=allowed))
        return apply(weights, v), weights
