"""`attend`: q, k, v -> values. Check, plan, run."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from headscope.attention.bias import Bias
from headscope.attention.direct import direct
from headscope.attention.known import jit_tracing, sizes_as_numbers
from headscope.attention.masks.mask import Mask
from headscope.attention.plan import Plan, describe, run
from headscope.attention.precision import autocast_dtype, cast, cast_bias
from headscope.attention.request import Request


def attend(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " h"] | None = None,
    dropout: float = 0.0,
    backend: str | None = None,
) -> Float[Tensor, "b h q e"]:
    """Attention on the fastest exact path: `softmax(scale · q kᵀ) v`, and all that may change scores or weights.

    Args:
        mask: who may attend to whom; `None` lets everyone see everything.
        bias: added to the scores.
        scale: multiplies the scores; `1/√d` unless given.
        softcap: bounds the scores: `softcap · tanh(score / softcap)`, before the bias.
        sinks: one learned logit per head in the denominator.
        dropout: the probability that a weight is dropped; give 0 in evaluation.
        backend: the path that must run; `None` picks, and `hs.plan` tells which and why.

    Shapes:
        q `(b, h, q, d)`, k `(b, g, k, d)`, v `(b, g, k, e)` with `h % g == 0` → values `(b, h, q, e)`.
        A query that may see nothing gets zeros.

    Raises:
        ShapeError: sizes, dtypes or devices do not fit together.
        MaskError: the mask or the bias is for other sizes.
        BackendRefused: the backend that was asked for cannot run this, with every reason.

    Source: Vaswani et al. 2017, equation 1; Ainslie et al. 2023 for grouped queries.

    Example:
        >>> import torch, headscope as hs
        >>> q, k, v = torch.randn(3, 2, 4, 7, 8)
        >>> hs.attend(q, k, v, mask=hs.causal()).shape
        torch.Size([2, 4, 7, 8])
    """
    # As torch's own functions do: a TorchFunctionMode sees one call, whatever happens inside.
    if has_torch_function((q, k, v)):
        options: dict[str, Any] = {"mask": mask, "bias": bias, "scale": scale, "softcap": softcap, "sinks": sinks}
        result: Tensor = handle_torch_function(attend, (q, k, v), q, k, v, **options, dropout=dropout, backend=backend)
        return result
    plain = backend is None and bias is None and softcap is None and dropout == 0.0
    if plain and not torch.compiler.is_compiling():
        values = direct(q, k, v, mask, scale, sinks)
        if values is not None:
            return values
    with sizes_as_numbers() if jit_tracing() else nullcontext():
        return run(requested(q, k, v, mask, bias, scale, softcap, sinks, dropout), backend)[0]


def attend_lse(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " h"] | None = None,
    dropout: float = 0.0,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b h q e"], Float[Tensor, "b h q"]]:
    """`attend`, and the natural logarithm of the sum of exponentiated scores of each query.

    Any weight is `exp(score - lse)`, and two pairs over different keys merge exactly with `hs.merge`. Differentiable.

    Shapes:
        as `attend`; lse `(b, h, q)`, float32 (float64 for float64); minus infinity for a query that may see nothing.

    Raises:
        ShapeError, MaskError, BackendRefused: as `attend`.

    Example:
        >>> import torch, headscope as hs
        >>> q, k, v = torch.zeros(3, 1, 1, 4, 8)
        >>> hs.attend_lse(q, k, v)[1][0, 0, 0].exp().round().item()  # four keys of weight exp(0)
        4.0
    """
    if has_torch_function((q, k, v)):
        options: dict[str, Any] = {"mask": mask, "bias": bias, "scale": scale, "softcap": softcap, "sinks": sinks}
        result: tuple[Tensor, Tensor] = handle_torch_function(
            attend_lse, (q, k, v), q, k, v, **options, dropout=dropout, backend=backend
        )
        return result
    with sizes_as_numbers() if jit_tracing() else nullcontext():
        request = requested(q, k, v, mask, bias, scale, softcap, sinks, dropout, needs_lse=True, where="attend_lse")
        values, lse = run(request, backend)
    assert lse is not None
    return values, lse


def plan(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " h"] | None = None,
    dropout: float = 0.0,
    backend: str | None = None,
) -> Plan:
    """Which path would run this call of `attend`, why, what refused and for which reasons, and what it costs.

    Shapes:
        as `attend`; nothing is computed.

    Raises:
        ShapeError, MaskError, BackendRefused: as `attend`.

    Example:
        >>> import torch, headscope as hs
        >>> hs.plan(*torch.zeros(3, 1, 1, 4, 8)).backend
        'fused'
    """
    return describe(requested(q, k, v, mask, bias, scale, softcap, sinks, dropout, where="plan"), backend)


def requested(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Mask | None,
    bias: Bias | None,
    scale: float | None,
    softcap: float | None,
    sinks: Tensor | None,
    dropout: float,
    needs_lse: bool = False,
    where: str = "attend",
) -> Request:
    """The call, checked; under autocast in the autocast dtype first, as `scaled_dot_product_attention` has it."""
    dtype = autocast_dtype(q)
    if dtype is not None:
        q, k, v = cast(q, dtype), cast(k, dtype), cast(v, dtype)
        bias = None if bias is None else cast_bias(bias, dtype)
        sinks = None if sinks is None else cast(sinks, dtype)
    return Request(q, k, v, mask, bias, scale, softcap, sinks, dropout, needs_lse, where)
