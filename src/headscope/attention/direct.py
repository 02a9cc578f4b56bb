"""Calls that are torch's fused kernel and nothing else, found by a few comparisons instead of a plan.

Small calls cost what surrounds them. Here everything that makes a call special sends it to the plan, which knows why.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from headscope.attention.known import PLAIN, leaves_python, no_modes
from headscope.attention.masks.mask import Mask
from headscope.attention.masks.window import Window
from headscope.attention.paths.fused import differentiable_again
from headscope.attention.plan import few
from headscope.attention.precision import flash_allowed
from headscope.attention.sinks import sinks_left
from headscope.compat.torch import FLASH
from headscope.compat.tracing import NAMES
from headscope.shapes import FLOATS

_any_autocast = NAMES.any_autocast


def direct(
    q: Tensor, k: Tensor, v: Tensor, mask: object, scale: float | None, sinks: Tensor | None = None
) -> Tensor | None:
    """The values of a call without bias, softcap and dropout; None where it must be planned.

    Never raises: what does not fit is planned, and refused there.
    """
    # First: in a traced call sizes are no numbers to compare.
    if not no_modes() or not flash_allowed():
        return None
    sizes = sizes_of(q, k, v)
    if (
        sizes is None
        or (scale is not None and not (type(scale) is float and 0.0 < scale < math.inf))
        or _any_autocast()
        or (sinks is not None and not plain_sinks(sinks, q, k, v))
    ):
        return None
    b, h, g, queries, keys, d = sizes
    added, causal = None, False
    if mask is not None:
        if not isinstance(mask, Mask):
            return None
        if queries == 1:
            seen = mask.last_query(keys, q.device)
            if seen is None or not seen.ranges or seen.items not in (1, b) or seen.heads not in (1, h):
                return None
            k, v = seen.slice(k), seen.slice(v)
            if seen.among is not None and (added := seen.among.added(1, k.shape[2], q.dtype, q.device)) is None:
                return None
        elif queries == keys and type(mask) is Window and mask.left is None and mask.right == 0:
            causal = True
        else:
            added = mask.added(queries, keys, q.dtype, q.device) if few(b * h * queries * keys, d) else None
            if added is None or added.shape[0] not in (1, b) or added.shape[1] not in (1, h):
                return None
    grouped = g != h
    folds = grouped and queries == 1 and (added is None or added.shape[1] == 1)
    if folds:
        # One query of many heads on the same keys is many queries of one head: the keys are read once for the group.
        q, grouped = q.reshape(b, g, h // g, d), False
    if sinks is not None:
        return left_by_sinks(q, k, v, added, scale, sinks).reshape(b, h, 1, d)
    # Arguments by name cost half a microsecond, so that the plainest call has none.
    if added is None and scale is None and not causal and not grouped:
        values = scaled_dot_product_attention(q, k, v)
    else:
        values = scaled_dot_product_attention(q, k, v, added, 0.0, causal, scale=scale, enable_gqa=grouped)
    if values.requires_grad:
        differentiable_again(values)
    return values.reshape(b, h, 1, d) if folds else values


def sizes_of(q: Tensor, k: Tensor, v: Tensor) -> tuple[int, int, int, int, int, int] | None:
    """b, h, g, q, k and d of tensors that torch's kernel takes as they are; None for all others."""
    if not (type(q) in PLAIN and type(k) in PLAIN and type(v) in PLAIN):
        return None
    try:
        # Each of these asks torch once: a shape or a stride takes longer than all comparisons of its numbers.
        shape, others = q.shape, k.shape
        if not (len(shape) == len(others) == 4 and others == v.shape):
            return None
        b, h, queries, d = shape
        items, g, keys, size = others
        dtype = q.dtype
        if (
            items != b
            or size != d
            or not (b and queries and d and g and keys)
            or h % g
            or not (dtype is k.dtype is v.dtype and dtype in FLOATS)
            or not (q.is_cpu and k.is_cpu and v.is_cpu)
            or not (dense(q) and dense(k) and dense(v))
        ):
            return None
    except RuntimeError:
        # Nested tensors have no sizes, sparse ones no strides.
        return None
    return b, h, g, queries, keys, d


def dense(x: Tensor) -> bool:
    """Whether the numbers of a row lie side by side, as torch's kernels read them; asked the cheap way first."""
    return x.is_contiguous() or x.stride()[3] == 1


def plain_sinks(sinks: Tensor, q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether one query of each head shares its weight with a sink, and no gradient is asked for."""
    return (
        q.shape[2] == 1
        and type(sinks) in PLAIN
        and sinks.is_cpu
        and sinks.shape == q.shape[1:2]
        and FLASH is not None
        and not (torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, sinks)))
        and not leaves_python()
    )


def left_by_sinks(q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, scale: float | None, sinks: Tensor) -> Tensor:
    """The values of one query of each head, times the share of the weight that the sinks leave.

    A query that sees no key has values of 0, whatever the share.
    """
    assert FLASH is not None
    if added is not None:
        added = added.expand(-1, -1, q.shape[2], -1)
    found: tuple[Tensor, Tensor] = FLASH.forward(q, k, v, 0.0, False, attn_mask=added, scale=scale)
    values, lse = found
    share = sinks_left(lse.reshape(len(q), -1, 1), sinks)
    return values * share.view(*lse.shape, 1).to(values.dtype)
