"""The weights that a transformers model returns with `output_attentions=True`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention.api import requested
from headscope.attention.paths.formula import normalise, scores
from headscope.attention.precision import autocast_off
from headscope.shapes import acc_dtype

# Models whose output holds the weights of these modules always, whatever was asked: on "eager" they are always there.
UNASKED = frozenset({"BridgeTowerSelfAttention", "BridgeTowerCrossAttention"})


def unasked(module: torch.nn.Module) -> bool:
    """Whether a model returns the weights of this module without asking it for them."""
    name = type(module).__name__
    # Kosmos-2 uses one class in its text model, and for the projection of its pictures, which is no decoder.
    return name in UNASKED or (name == "KosmosTextAttention" and not module.is_decoder)


def returned_weights(q: Tensor, k: Tensor, v: Tensor, room: int, **changes: Any) -> Tensor:
    """Exact weights `(b, h, q, room)` in the dtype of the queries, as on "eager"; differentiable, before dropout.

    Args:
        room: how many keys the model has room for; those that were left out have weights of 0.
        changes: the mask, bias, scale, softcap and sinks of the call.
    """
    call = requested(
        q, k, v, changes["mask"], changes["bias"], changes["scale"], changes["softcap"], changes["sinks"], dropout=0.0
    )
    queries, keys = call.q.shape[2], call.k.shape[2]
    bias = None if call.bias is None else call.bias.whole(queries, keys, call.q.device, acc_dtype(call.q.dtype))
    with autocast_off(call.q):
        s = scores(call.q, call.k, scale=call.scale, softcap=call.softcap, bias=bias, allowed=call.allowed())
        weights = normalise(s, call.sinks)[0].to(call.q.dtype)
    return weights if keys == room else pad(weights, (0, room - keys))
