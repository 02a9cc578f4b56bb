"""The fused path: torch's own scaled dot-product attention, called so that it stays on its fused kernels."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from headscope.attention.bias import DenseBias
from headscope.attention.request import Request
from headscope.attention.sinks import with_sinks
from headscope.compat import torch as private

NAME = "fused"


def refusals(request: Request) -> list[str]:
    """Why SDPA cannot run this on a fused kernel; empty when it can."""
    reasons = []
    on_cpu = request.q.device.type == "cpu"
    trains = request.trains
    if request.softcap is not None:
        reasons.append("scaled_dot_product_attention has no softcap")
    if request.bias is not None and not isinstance(request.bias, DenseBias):
        reasons.append(f"{request.bias!r} would have to be written out as a (queries x keys) matrix")
    elif request.bias is not None and trains and request.bias.parameters[0].requires_grad:
        reasons.append("a bias that needs a gradient makes scaled_dot_product_attention leave its fused kernels")
    if request.dropout and on_cpu:
        reasons.append("with dropout scaled_dot_product_attention leaves its fused kernels on CPU")
    for wanted, name in ((request.needs_lse, "the lse"), (request.sinks is not None, "the lse, which sinks need,")):
        if wanted and not on_cpu:
            reasons.append(f"{name} is only given by scaled_dot_product_attention on CPU")
        elif wanted and private.FLASH is None:
            reasons.append(f"{name} comes from a kernel that torch {torch.__version__} does not have")
        elif wanted and trains:
            reasons.append(f"{name} has no gradient in scaled_dot_product_attention")
    return reasons


def run(request: Request) -> tuple[Tensor, Tensor | None]:
    """Values of a request, and its lse where that was asked for or is needed for sinks."""
    q, k, v = request.q, request.k, request.v
    b, h, queries, d = q.shape
    keys, size = v.shape[2:]
    if keys == 0 or q.numel() == 0:
        lse = q.new_full((b, h, queries), -math.inf, dtype=lse_dtype(q))
        # The product keeps the (zero) gradients of an attention over nothing.
        return (q.sum() + k.sum() + v.sum()) * 0 + q.new_zeros(b, h, queries, size), lse
    if d != size:
        q, k, v = (pad(x, (0, max(d, size) - x.shape[3])) for x in (q, k, v))
    if not q.stride(3) == k.stride(3) == v.stride(3) == 1:
        # Contiguous in the last axis, or SDPA silently takes its unfused path.
        q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    grouped = k.shape[1] != h
    mask, causal = written_out(request)
    if grouped and queries == 1 and (mask is None or mask.shape[1] == 1):
        # One query of many heads on the same keys is many queries of one head: the keys are read once for the group.
        q, grouped = q.reshape(b, k.shape[1], -1, q.shape[3]), False
    wanted: Tensor | None = None
    if request.needs_lse or request.sinks is not None:
        values, wanted = with_lse(q, k, v, mask, causal, request)
    else:
        values = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=request.dropout,
            is_causal=causal,
            scale=request.scale,
            enable_gqa=grouped,
        )
    if values.shape[1] != h:
        values = values.reshape(b, h, queries, -1)
    return values if d <= size else values[..., :size], wanted


def written_out(request: Request) -> tuple[Tensor | None, bool]:
    """The mask and the bias as SDPA takes them: a tensor, or the word "causal"."""
    if request.mask is None and request.bias is None:
        return None, False
    queries, keys = request.q.shape[2], request.k.shape[2]
    if request.bias is None and request.is_causal:
        # With one query everything is in its past.
        if queries == 1:
            return None, False
        return None, True
    allowed = request.allowed()
    if request.bias is None:
        return allowed, False
    bias = request.bias.block(slice(0, queries), 0, keys, queries, keys).to(request.q.dtype)
    return bias if allowed is None else torch.where(allowed, bias, -math.inf), False


def with_lse(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, request: Request
) -> tuple[Tensor, Tensor]:
    """Values and lse from the kernel below SDPA, on CPU, sinks included."""
    if mask is not None:
        mask = mask.expand(-1, -1, q.shape[2], -1) if mask.shape[2] == 1 else mask
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, -math.inf)
    assert private.FLASH is not None
    values, lse = private.FLASH.forward(q, k, v, 0.0, causal, attn_mask=mask, scale=request.scale)
    b, h, queries = request.q.shape[:3]
    if mask is not None:
        # The kernel says 0 for a row that sees nothing.
        lse = lse.masked_fill(mask.isneginf().all(-1), -math.inf)
    values, lse = values.reshape(b, h, queries, -1), lse.reshape(b, h, queries)
    if request.sinks is not None:
        return with_sinks(values, lse, request.sinks)
    return values, lse


def lse_dtype(q: Tensor) -> torch.dtype:
    """The dtype of an lse: float64 for float64, float32 for all else."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32
