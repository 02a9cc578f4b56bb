"""The masks of `nn.MultiheadAttention`'s call, read once for all layers of a model: a mask and a bias of ours.

Torch's True means "may not attend"; numbers are added to the scores, and both masks may be of either kind.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention.bias import Bias, dense_bias
from headscope.attention.known import known
from headscope.attention.masks.mask import Intervals, Mask, dense
from headscope.attention.masks.runs import Runs
from headscope.attention.masks.snapshot import Snapshot
from headscope.attention.masks.tensors import causal_from_the_start, read, split
from headscope.attention.masks.window import causal
from headscope.errors import MaskError
from headscope.shapes import shape

# One object, so that all layers find its runs made already.
CAUSAL = causal()


class Sizes(NamedTuple):
    """What the masks of a call are for.

    Attributes:
        keys: as many as the caller has.
        appended: how many the layer appends to them (`add_bias_kv`, `add_zero_attn`); every query may see these.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    appended: int = 0


class Masks(NamedTuple):
    """Who may attend to whom, and what is added to the scores."""

    mask: Mask | None
    bias: Bias | None


class Kept(NamedTuple):
    """Masks of a call, what they were read from, and what ends with that."""

    before: list[Snapshot]
    masks: Masks
    ends: list[weakref.ref[Tensor]]


def causal_hint(sizes: Sizes) -> Mask:
    """What torch makes of `is_causal` where it needs no mask tensor: query i sees the keys 0 … i."""
    keys = sizes.keys + sizes.appended
    if sizes.queries == keys:
        return CAUSAL
    return Intervals(causal_from_the_start(sizes.queries, keys, torch.device("cpu")), keys)


class TorchMaskReader:
    """Reads the masks of calls, each pair of tensors once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Kept] = {}

    def __call__(self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, sizes: Sizes) -> Masks:
        """Both masks together.

        Shapes:
            attn_mask `(q, k)` or `(b · h, q, k)`; key_padding_mask `(b, k)`, or `(k,)` for a batch of one.

        Raises:
            MaskError: other shapes; neither booleans nor floating point.
        """
        tensors = [mask for mask in (attn_mask, key_padding_mask) if mask is not None]
        if not tensors:
            return Masks(None, None)
        if not known(*tensors) or any(mask.requires_grad for mask in tensors):
            return combined(attn_mask, key_padding_mask, sizes)
        key = (id(attn_mask), id(key_padding_mask), sizes)
        found = self._known.get(key)
        if found is not None and all(one.holds(mask) for one, mask in zip(found.before, tensors, strict=True)):
            return found.masks
        before, masks = [Snapshot(mask) for mask in tensors], combined(attn_mask, key_padding_mask, sizes)
        if all(one.lasts for one in before):
            # Gone with the first of the two, before another tensor can have its id.
            ends = [weakref.ref(mask, lambda _: self._known.pop(key, None)) for mask in tensors]
            self._known[key] = Kept(before, masks, ends)
        return masks


def combined(attn_mask: Tensor | None, key_padding_mask: Tensor | None, sizes: Sizes) -> Masks:
    """Both masks, read."""
    found = []
    if attn_mask is not None:
        found.append(meaning(by_pair(attn_mask, sizes), sizes))
    if key_padding_mask is not None:
        found.append(meaning(by_key(key_padding_mask, sizes), sizes))
    masks = [mask for mask, _ in found if mask is not None]
    biases = [bias for _, bias in found if bias is not None]
    mask = masks[0] & masks[1] if len(masks) == 2 else masks[0] if masks else None
    bias = biases[0] + biases[1] if len(biases) == 2 else biases[0] if biases else None
    return Masks(mask, None if bias is None else dense_bias(bias))


def by_pair(attn_mask: Tensor, sizes: Sizes) -> Tensor:
    """`attn_mask` as `(b|1, h|1, q, k)`."""
    check_dtype("attn_mask", attn_mask)
    b, h, queries, keys, _ = sizes
    if shape(attn_mask) == (queries, keys):
        return attn_mask[None, None]
    if shape(attn_mask) == (b * h, queries, keys):
        return attn_mask.view(b, h, queries, keys)
    raise MaskError(
        f"attn_mask is {shape(attn_mask)}; give (queries, keys) = {(queries, keys)} or (batch · heads, queries, keys) "
        f"= {(b * h, queries, keys)}."
    )


def by_key(key_padding_mask: Tensor, sizes: Sizes) -> Tensor:
    """`key_padding_mask` as `(b, 1, 1, k)`."""
    check_dtype("key_padding_mask", key_padding_mask)
    rows = key_padding_mask if key_padding_mask.ndim > 1 else key_padding_mask[None]
    if shape(rows) != (sizes.batch, sizes.keys):
        raise MaskError(
            f"key_padding_mask is {shape(key_padding_mask)}; give (batch, keys) = {(sizes.batch, sizes.keys)}, "
            "or (keys,) where the inputs have no batch."
        )
    return rows[:, None, None]


def check_dtype(name: str, mask: Tensor) -> None:
    """Raise `MaskError` for a mask that torch's layer does not take."""
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise MaskError(
            f"{name} is {mask.dtype}; give booleans (True: may not attend) or numbers that are added to the scores."
        )


def meaning(mask: Tensor, sizes: Sizes) -> tuple[Mask | None, Tensor | None]:
    """One mask of torch `(b|1, h|1, q|1, k)` as a mask of ours and as numbers that are added."""
    if sizes.appended:
        mask = pad(mask, (0, sizes.appended))
    keys = mask.shape[-1]
    seen = ~mask if mask.dtype == torch.bool else mask
    if not known(mask) or mask.requires_grad:
        # A learned mask has a gradient also where it is 0 everywhere now.
        allowed, added = (seen, None) if seen.dtype == torch.bool else split(seen)
        if added is None and mask.requires_grad:
            added = mask.masked_fill(~allowed, 0.0)
        return dense(allowed), added
    runs, added = read(seen.detach())
    if runs is None:
        return None, added
    return CAUSAL if is_causal(runs, keys) else Intervals(runs, keys), added


def is_causal(runs: Runs, keys: int) -> bool:
    """Whether runs are exactly those of `causal()` on a square."""
    start, stop = runs
    if shape(stop) != (1, 1, keys, 1) or bool(start.any()):
        return False
    return torch.equal(stop.flatten(), torch.arange(1, keys + 1, device=stop.device, dtype=stop.dtype))
