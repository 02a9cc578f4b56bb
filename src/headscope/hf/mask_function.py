"""The mask function of `attn_implementation="headscope"`: the masks of transformers as runs of keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from headscope.attention.known import known
from headscope.attention.masks.mask import Dense, Intervals, Mask
from headscope.attention.masks.runs import Runs, intersect
from headscope.attention.masks.tensors import runs_of
from headscope.attention.masks.window import Slice, runs_of_window, window
from headscope.compat.transformers import Sides, adds_masks, masks, sides_of, without_sdpa
from headscope.hf.lazy_mask import LazyMask


def mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Tensor] | None = None,
    attention_mask: Tensor | None = None,
    allow_is_bidirectional_skip: bool = False,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **others: Any,
) -> Tensor | None:
    """The mask function: who may see whom, as runs, made once for all layers; a tensor only to transformers.

    A window, causal or not, with or without padding, is made from its numbers in O(N). Any other rule is asked about
    every pair of query and key once, and so is every rule while a graph is traced, where the padding is not known.
    Models that add their masks to their scores by themselves get numbers to add.
    """
    config = others.get("config")
    if config is not None and without_sdpa(type(config)):
        if adds_masks(type(config)):
            return added(locals() | others)
        # No mask hides nothing there.
        allow_is_bidirectional_skip = others["allow_is_causal_skip"] = False
    theirs = masks()
    rule: Callable[..., Any] = theirs.causal if mask_function is None else mask_function
    readable = known(attention_mask, q_offset if isinstance(q_offset, Tensor) else None)
    if not readable and attention_mask is None and q_offset == kv_offset == 0 and q_length == kv_length:
        # What `attention` does without a mask is causality alone, or nothing.
        if rule is theirs.causal and others.get("allow_is_causal_skip", True):
            return None
        if rule is theirs.bidirectional and allow_is_bidirectional_skip:
            return None
    sides = None if use_vmap or not readable else sides_of(rule)
    if sides is None:
        sizes, offsets = (batch_size, q_length, kv_length), {"q_offset": q_offset, "kv_offset": kv_offset}
        options = {"mask_function": rule, "attention_mask": attention_mask, "use_vmap": use_vmap, "device": device}
        dense: Tensor | None = theirs.dense(*sizes, **offsets, **options, allow_is_causal_skip=False)
        assert dense is not None
        if not readable:
            # In a graph every model has a tensor, as on "sdpa".
            return dense
        return LazyMask(Intervals(runs_of(dense), kv_length), *sizes, device)
    if isinstance(q_offset, Tensor) and q_offset.is_cpu:
        # A static cache counts its tokens in a tensor.
        q_offset = int(q_offset)
    real = theirs.padding(attention_mask, kv_length, kv_offset)
    if real is not None:
        real = padding(sides, q_length, kv_length, q_offset, kv_offset, real)
    if others.get("allow_is_causal_skip", False) and implied(sides, q_length, kv_length, q_offset, kv_offset, real):
        return None
    who = windowed(sides, q_length, kv_length, q_offset, kv_offset, real, torch.device(device))
    if who is None:
        if allow_is_bidirectional_skip:
            return None
        who = window(None, None)
    return LazyMask(who, batch_size, q_length, kv_length, device)


def added(arguments: dict[str, Any]) -> Tensor | None:
    """The mask of "eager": numbers that are added to scores."""
    from transformers import AttentionMaskInterface

    make = AttentionMaskInterface()["eager"]  # type: ignore[no-untyped-call]
    names = ("batch_size", "q_length", "kv_length", "q_offset", "kv_offset", "mask_function", "attention_mask")
    more = ("dtype", "allow_is_bidirectional_skip", "use_vmap", "device")
    found: Tensor | None = make(
        **{name: arguments[name] for name in (*names, *more) if arguments.get(name) is not None}
    )
    return found


def padding(
    sides: Sides, queries: int, keys: int, q_offset: int | Tensor, kv_offset: int, real: Tensor
) -> Tensor | None:
    """Which keys are no padding, `(b, k)`; None where that hides nothing."""
    real = real[:, kv_offset : kv_offset + keys].bool()
    # Room of a static cache behind the last query is marked as padding too, and is hidden from causal queries anyway.
    last = q_offset + queries - kv_offset if sides[1] == 0 and isinstance(q_offset, int) else keys
    return None if bool(real[:, :last].all()) else real


def implied(sides: Sides, queries: int, keys: int, q_offset: int | Tensor, kv_offset: int, real: Tensor | None) -> bool:
    """Whether `attention` does the same without a mask: one query that sees all keys, or causality from the start."""
    left, right = sides
    if real is not None or right != 0 or not isinstance(q_offset, int):
        return False
    own = q_offset - kv_offset
    if queries == 1:
        return own == keys - 1 and (left is None or left >= own)
    return own == 0 and queries <= keys and (left is None or left >= queries - 1)


def windowed(
    sides: Sides,
    queries: int,
    keys: int,
    q_offset: int | Tensor,
    kv_offset: int,
    real: Tensor | None,
    device: torch.device,
) -> Mask | None:
    """The mask of a window with padding; None where everyone may see everything."""
    if sides == (None, None) and real is None:
        return None
    if real is None and isinstance(q_offset, int) and q_offset + queries == kv_offset + keys:
        return window(*sides)
    if queries == 1 and isinstance(q_offset, int):
        return of_one_query(sides, keys, q_offset - kv_offset, real, device)
    runs = near(sides, queries, keys, q_offset, kv_offset, device)
    if real is not None:
        padded = runs_of(real[:, None, None])
        runs = padded if sides == (None, None) else intersect(runs, padded)
    return Intervals(runs, keys)


def of_one_query(sides: Sides, keys: int, own: int, real: Tensor | None, device: torch.device) -> Mask:
    """The mask of one query at the key `own`; a step of decoding makes no runs, which only a recording asks for."""
    left, right = sides
    first = 0 if left is None else min(max(own - left, 0), keys)
    last = keys if right is None else max(first, min(own + right + 1, keys))
    if real is None:
        return Slice(first, last, keys)
    # A copy: its owner may write to the padding before a recording asks.
    allowed = real[:, None, None].clone()
    if first > 0:
        allowed[..., :first] = False
    if last < keys:
        allowed[..., last:] = False
    return Dense(allowed)


def near(sides: Sides, queries: int, keys: int, q_offset: int | Tensor, kv_offset: int, device: torch.device) -> Runs:
    """The runs of a window, for queries and keys that begin at some position of a longer text."""
    own = torch.arange(queries, device=device, dtype=torch.int32)[None, None, :, None] + q_offset - kv_offset
    return runs_of_window(own, keys, *sides)
