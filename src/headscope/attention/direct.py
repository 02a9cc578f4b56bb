"""Calls that are torch's fused kernel and nothing else, found by a few comparisons instead of a plan.

Small calls cost what surrounds them. Here everything that makes a call special sends it to the plan, which knows why.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.functional import scaled_dot_product_attention

from headscope.attention.known import PLAIN, no_modes
from headscope.attention.masks.mask import Mask
from headscope.attention.masks.window import Window
from headscope.attention.paths.fused import differentiable_again
from headscope.attention.plan import few

_any_autocast = torch._C._is_any_autocast_enabled


def direct(q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, scale: float | None) -> Tensor | None:
    """The values of a call without bias, softcap, sinks and dropout; None where it must be planned.

    Never raises: what does not fit is planned, and refused there.
    """
    if type(q) not in PLAIN or type(k) not in PLAIN or type(v) not in PLAIN or q.ndim != 4 or k.ndim != 4:
        return None
    if _any_autocast() or forward_ad._current_level >= 0 or not no_modes():
        return None
    b, h, queries, d = q.shape
    items, g, keys, _ = sizes = k.shape
    if items != b or sizes != v.shape or sizes[3] != d or not g or h % g or not keys or not d or not queries or not b:
        return None
    if q.dtype is not k.dtype or q.dtype is not v.dtype or not q.dtype.is_floating_point:
        return None
    if not (q.is_cpu and k.is_cpu and v.is_cpu) or not q.stride()[3] == k.stride()[3] == v.stride()[3] == 1:
        return None
    if scale is not None and not scale > 0:
        return None
    added, causal = None, False
    if mask is not None:
        if queries == 1:
            seen = mask.last_query(keys, q.device) if isinstance(mask, Mask) else None
            if seen is None or not seen.ranges or seen.items not in (1, b) or seen.heads not in (1, h):
                return None
            k, v = seen.slice(k), seen.slice(v)
            if seen.among is not None:
                added = seen.among.added(1, k.shape[2], q.dtype, q.device)
                if added is None:
                    return None
        elif queries == keys and type(mask) is Window and mask.left is None and mask.right == 0:
            causal = True
        elif isinstance(mask, Mask) and few(b * h * queries * keys, d):
            added = mask.added(queries, keys, q.dtype, q.device)
            if added is None or added.shape[0] not in (1, b) or added.shape[1] not in (1, h):
                return None
        else:
            return None
    grouped = g != h
    folds = grouped and queries == 1 and (added is None or added.shape[1] == 1)
    if folds:
        # One query of many heads on the same keys is many queries of one head: the keys are read once for the group.
        q, grouped = q.reshape(b, g, h // g, d), False
    values = scaled_dot_product_attention(q, k, v, added, 0.0, causal, scale=scale, enable_gqa=grouped)
    if values.requires_grad:
        differentiable_again(values)
    return values.reshape(b, h, 1, d) if folds else values
