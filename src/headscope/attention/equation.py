"""The paper's equation, written out: `softmax(Q Kᵀ / √d) V`, with everything that may change scores or weights.

Nothing here is clever: the whole matrix of weights is built. Scores, weights and the lse are float32 (float64 for
float64), whatever the dtype of q, k and v.

Source: Vaswani et al. 2017, "Attention Is All You Need", §3.2.1.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headscope.shapes import acc_dtype


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
    wide = acc_dtype(q.dtype)
    grouped = q.to(wide).reshape(b, k.shape[1], h // k.shape[1] * queries, d)
    s = (grouped @ k.to(wide).transpose(-2, -1)).reshape(b, h, queries, k.shape[2]) * scale
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
    if s.shape[-1] == 0:
        # No largest score of no keys.
        lse = s.new_full(s.shape[:-1], -math.inf) if sinks is None else sinks.to(s.dtype)[:, None].expand(s.shape[:-1])
        return s, lse
    # Relative to the largest score, as every softmax: exp(s - lse) would round with the size of the scores.
    top = s.detach().amax(-1, keepdim=True)
    sink = None if sinks is None else sinks.to(s.dtype)[None, :, None, None]
    if sink is not None:
        top = torch.maximum(top, sink.detach())
    # A row of minus infinities would give NaN, so such a row is summed as zeros and put right afterwards.
    empty = top.isneginf()
    top = top.masked_fill(empty, 0.0)
    parts = torch.exp(s - top)
    total = parts.sum(-1, keepdim=True)
    total = total.masked_fill(empty, 1.0) if sink is None else total + torch.exp(sink - top)
    lse = (top + total.log()).masked_fill(empty, -math.inf)
    return parts / total, lse.squeeze(-1)


def apply(weights: Float[Tensor, "b h q k"], v: Float[Tensor, "b g k e"]) -> Float[Tensor, "b h q e"]:
    """The weighted sum of the values, in their dtype."""
    b, h, queries, keys = weights.shape
    grouped = weights.reshape(b, v.shape[1], h // v.shape[1] * queries, keys)
    return (grouped @ v.to(weights.dtype)).reshape(b, h, queries, v.shape[3]).to(v.dtype)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    sinks: Tensor | None,
    *,
    scale: float,
    softcap: float | None,
    allowed: Tensor | None,
    keep: float | Tensor = 0.0,
) -> tuple[Tensor, Tensor]:
    """Values and lse from tensors alone: differentiable any number of times, in either mode.

    Args:
        keep: the probability that a weight is dropped, or what every weight is multiplied with.
    """
    s = scores(q, k, scale=scale, softcap=softcap, bias=bias, allowed=allowed)
    weights, lse = normalise(s, sinks)
    if isinstance(keep, Tensor):
        weights = weights * keep
    elif keep:
        weights = torch.nn.functional.dropout(weights, keep)
    return apply(weights, v), lse
