"""The fused path: torch's own scaled dot-product attention, called so that it stays on its fused kernels."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from headscope.attention.bias import DenseBias
from headscope.attention.equation import attention
from headscope.attention.known import known, leaves_python, transforms
from headscope.attention.precision import NO_KERNEL, no_kernel, only_math
from headscope.attention.request import Request, default_scale
from headscope.attention.second_derivative import with_derivatives
from headscope.attention.sinks import sinks_left, with_sinks
from headscope.compat import torch as private
from headscope.compat.tracing import current_node
from headscope.shapes import acc_dtype

NAME = "fused"


def refusals(request: Request) -> list[str]:
    """Why SDPA cannot run this on a fused kernel; empty when it can."""
    reasons = []
    on_cpu = request.device.kind == "cpu"
    trains = request.trains
    if request.softcap is not None:
        reasons.append("scaled_dot_product_attention has no softcap")
    if request.bias is not None and not isinstance(request.bias, DenseBias):
        reasons.append(f"{request.bias!r} would have to be written out as a (queries x keys) matrix")
    elif request.bias is not None and trains and request.bias.parameters[0].requires_grad:
        reasons.append("a bias that needs a gradient makes scaled_dot_product_attention leave its fused kernels")
    if request.dropout and on_cpu:
        reasons.append("with dropout scaled_dot_product_attention leaves its fused kernels on CPU")
    wanted = "the lse" if request.needs_lse else "the lse, which sinks need," if request.sinks is not None else None
    if wanted is not None:
        if not on_cpu:
            reasons.append(f"{wanted} is only given by scaled_dot_product_attention on CPU")
        elif private.FLASH is None:
            reasons.append(f"{wanted} comes from a kernel that torch {torch.__version__} does not have")
        elif trains:
            reasons.append(f"{wanted} has no gradient in scaled_dot_product_attention")
        elif only_math(request.q.device):
            reasons.append(f"{wanted} comes from the flash kernel, which torch's sdpa_kernel(...) does not allow")
        elif leaves_python():
            reasons.append(f"{wanted} comes from a kernel that a graph without headscope cannot hold")
    if no_kernel(request.q.device):
        reasons.append(NO_KERNEL)
    asked = transforms(request.q, request.k, request.v)
    if asked is not None:
        if asked.forward or asked.order > 1:
            reasons.append("scaled_dot_product_attention has no second and no forward-mode derivative")
        elif asked.batched:
            reasons.append("scaled_dot_product_attention has no rule for vmap")
    return reasons


def run(request: Request) -> tuple[Tensor, Tensor | None]:
    """Values of a request, and its lse where that was asked for or is needed for sinks."""
    q, k, v = request.q, request.k, request.v
    b, h, queries, d = q.shape
    keys, size = v.shape[2:]
    if keys == 0 or 0 in (b, h, queries):
        return nothing(request)
    scale = request.scale
    if scale <= 0:
        # The kernel hides keys before it scales: minus infinity must stay below all.
        q, scale = (q * -1.0, -scale) if scale < 0 else (q * 0.0, 1.0)
    # A size of 0 is none that a kernel takes.
    if d != size or d == 0:
        q, k, v = (pad(x, (0, max(d, size, 1) - x.shape[3])) for x in (q, k, v))
    if not q.stride(3) == k.stride(3) == v.stride(3) == 1:
        # Contiguous in the last axis, or SDPA silently takes its unfused path.
        q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    grouped = bool(k.shape[1] != h)
    mask, causal = written_out(request)
    if grouped and queries == 1 and (mask is None or mask.shape[1] == 1):
        # One query of many heads on the same keys is many queries of one head: the keys are read once for the group.
        q, grouped = q.reshape(b, k.shape[1], -1, q.shape[3]), False
    wanted: Tensor | None = None
    if request.needs_lse or request.sinks is not None:
        values, wanted = with_lse(q, k, v, mask, causal, scale, request)
    else:
        values = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=request.dropout,
            is_causal=causal,
            scale=scale,
            enable_gqa=grouped,
        )
        if mask is not None and leaves_python():
            # Runtimes of other graphs give a row that sees nothing uniform weights.
            seen = mask if mask.dtype == torch.bool else ~mask.isneginf()
            values = values.masked_fill(~seen.any(-1, keepdim=True), 0.0)
        if request.trains and known(q):
            differentiable_again(values)
    if values.shape[1] != h:
        values = values.reshape(b, h, queries, -1)
    return values if values.shape[3] == size else values[..., :size], wanted


def nothing(request: Request) -> tuple[Tensor, Tensor]:
    """Values of zero, and the lse of no keys: that of the sinks, where there are any."""
    q, k, v = request.q, request.k, request.v
    # The products keep the (zero) gradients of an attention over nothing.
    zero = (q.sum() + k.sum() + v.sum()) * 0
    lse = q.new_full(q.shape[:3], -math.inf, dtype=acc_dtype(q.dtype))
    if request.sinks is not None:
        lse = (request.sinks.to(lse.dtype)[:, None] + torch.zeros_like(lse)) + zero.to(lse.dtype)
    return zero + q.new_zeros(*q.shape[:3], v.shape[3]), lse


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
    if request.bias is None:
        added = request.added()
        return request.allowed() if added is None else added, False
    allowed = request.allowed()
    bias = request.bias.whole(queries, keys, request.q.device, request.q.dtype)
    return bias if allowed is None else torch.where(allowed, bias, -math.inf), False


def with_lse(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float, request: Request
) -> tuple[Tensor, Tensor | None]:
    """Values and, where it was asked for, lse from the kernel below SDPA, on CPU, sinks included."""
    if mask is not None:
        mask = mask.expand(-1, -1, q.shape[2], -1) if mask.shape[2] == 1 else mask
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(~mask, -math.inf)
    assert private.FLASH is not None
    values, lse = private.FLASH.forward(q, k, v, 0.0, causal, attn_mask=mask, scale=scale)
    b, h, queries = request.q.shape[:3]
    if mask is not None:
        # The kernel says 0 for a row that sees nothing.
        lse = lse.masked_fill(mask.isneginf().all(-1), -math.inf)
    values, lse = values.reshape(b, h, queries, -1), lse.reshape(b, h, queries)
    if request.sinks is None:
        return values, lse
    if not request.needs_lse:
        return values * sinks_left(lse, request.sinks)[..., None].to(values.dtype), None
    return with_sinks(values, lse, request.sinks)


def differentiable_again(values: Tensor) -> None:
    """Give the backward of torch's kernel a derivative of its own, which torch does not have: that of the formula."""
    node = values.grad_fn
    if node is not None and node.name() == KERNEL_NODE:
        node.register_hook(_again)


# The node of autograd for torch's fused kernel on CPU; on a GPU torch's own refusal stays.
KERNEL_NODE = "ScaledDotProductFlashAttentionForCpuBackward0"
# What it saved: its inputs, and how it was called.
SAVED = ("_saved_query", "_saved_key", "_saved_value", "_saved_scale", "_saved_attn_mask", "_saved_is_causal")


def _again(grads: tuple[Tensor | None, ...], outer: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...] | None:
    """After the kernel's backward: its gradients as functions of q, k, v, where autograd records the backward."""
    if not torch.is_grad_enabled():
        return None
    # Nothing is kept for this: the node itself still holds what it saved.
    node = current_node()
    if node is None or not all(hasattr(node, name) for name in SAVED):
        return None
    scale, mask, causal = node._saved_scale, node._saved_attn_mask, node._saved_is_causal
    scale = default_scale(node._saved_query) if scale is None else scale

    def formula(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        bias, allowed = (mask, None) if mask is None or mask.dtype != torch.bool else (None, mask)
        if causal:
            allowed = torch.ones(1, 1, q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        return attention(q, k, v, bias, None, scale=scale, softcap=None, allowed=allowed)

    inputs = node._saved_query, node._saved_key, node._saved_value
    results = (None if g is None else g.detach() for g in grads[:3])
    return (*with_derivatives(formula, inputs, outer[0], None, tuple(results)), *grads[3:])
