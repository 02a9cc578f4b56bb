"""Calls that are torch's fused kernel and nothing else, found by a few comparisons instead of a plan.

Small calls cost what surrounds them. Here everything that makes a call special sends it to the plan, which knows why.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from headscope.attention.known import PLAIN, no_modes
from headscope.attention.masks.mask import Mask
from headscope.attention.masks.window import Window
from headscope.attention.paths.fused import differentiable_again
from headscope.attention.plan import few
from headscope.attention.precision import flash_allowed
from headscope.compat.tracing import NAMES

_any_autocast = NAMES.any_autocast


def direct(q: Tensor, k: Tensor, v: Tensor, mask: object, scale: float | None) -> Tensor | None:
    """The values of a call without bias, softcap, sinks and dropout; None where it must be planned.

    Never raises: what does not fit is planned, and refused there.
    """
    if not (type(q) in PLAIN and type(k) in PLAIN and type(v) in PLAIN and q.ndim == k.ndim == 4):
        return None
    # First: in a traced call sizes are no numbers to compare.
    if not no_modes() or not flash_allowed():
        return None
    (b, h, queries, d), (items, g, keys, size) = q.shape, k.shape
    if (
        k.shape != v.shape
        or items != b
        or size != d
        or not (b and queries and d and g and keys)
        or h % g
        or not (q.dtype is k.dtype is v.dtype and q.is_floating_point())
        or not (q.is_cpu and k.is_cpu and v.is_cpu)
        or not q.stride()[3] == k.stride()[3] == v.stride()[3] == 1
        or (scale is not None and not scale > 0)
        or _any_autocast()
    ):
        return None
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
    values = scaled_dot_product_attention(q, k, v, added, 0.0, causal, scale=scale, enable_gqa=grouped)
    if values.requires_grad:
        differentiable_again(values)
    return values.reshape(b, h, 1, d) if folds else values
