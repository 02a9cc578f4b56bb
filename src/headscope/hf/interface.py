"""`attn_implementation="headscope"`: transformers models that run on `hs.attend`, with runs of keys in place of dense
masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from headscope.attention.api import attend
from headscope.attention.bias import Bias, dense_bias
from headscope.attention.masks.mask import Given, Mask
from headscope.attention.masks.runs import Runs, intersect
from headscope.attention.masks.tensors import Meaning, Reader, runs_of
from headscope.attention.masks.window import causal, window
from headscope.compat.transformers import Sides, adds_masks, masks, sides_of
from headscope.errors import BackendRefused, MaskError, MissingExtra
from headscope.hf.call_arguments import HandedMask

NAME = "headscope"

_read = Reader()


def register() -> None:
    """Make `attn_implementation="headscope"` known to transformers; calling it again changes nothing.

    Both halves are registered: the attention function, and the mask function without which transformers would hand
    over no mask at all, and lose causality silently.

    Raises:
        MissingExtra: transformers is not installed.

    Example:
        >>> import headscope.hf.interface as hf
        >>> hf.register()
        >>> from transformers import BertConfig, BertModel
        >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> BertModel._from_config(config, attn_implementation="headscope").config._attn_implementation
        'headscope'
    """
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
    except ImportError:
        raise MissingExtra("hf.register: transformers is not installed; pip install 'headscope[hf]'.") from None
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention function: values as `(batch, queries, heads, size)`, and no weights, which `hs.record` gives.

    Raises:
        BackendRefused: continuous batching, whose keys are scattered over pages; sinks that differ between queries.
    """
    if others.get("cache") is not None:
        raise BackendRefused(
            'attn_implementation="headscope": continuous batching keeps its keys in pages, which headscope does not '
            "read; "
            'use attn_implementation="sdpa" for it.'
        )
    if others.get("sinks") is not None:
        raise BackendRefused(
            'attn_implementation="headscope": every query of this model has a sink of its own, and headscope takes one '
            'for each head; use attn_implementation="eager" for it.'
        )
    b = max(query.shape[0], key.shape[0])
    query, key, value = (x.expand(b, *x.shape[1:]) for x in (query, key, value))
    queries, keys = query.shape[2], key.shape[2]
    bias: Bias | None = None
    given: Mask | None = None
    if isinstance(attention_mask, HandedMask) and attention_mask.shape[-1] == keys:
        given = attention_mask.mask
    elif attention_mask is not None:
        given, bias = from_tensor(
            attention_mask if attention_mask.shape[-1] == keys else attention_mask[..., :keys], keys
        )
    elif queries > 1 and (is_causal if is_causal is not None else getattr(module, "is_causal", True)):
        # Without a mask, causality is counted from the first key, as in SDPA: later keys are room for what is to come.
        key, value, keys = key[:, :, :queries], value[:, :, :queries], min(queries, keys)
        given = causal()
    if position_bias is not None:
        added = position_bias[..., :keys]
        bias = dense_bias(added if bias is None else added + bias.block(slice(0, queries), 0, keys, queries, keys))
    sinks = None if s_aux is None else s_aux.to(query.dtype)
    values = attend(
        query, key, value, mask=given, bias=bias, scale=scaling, softcap=softcap, sinks=sinks, dropout=dropout
    )
    return values.transpose(1, 2).contiguous(), None


def from_tensor(tensor: Tensor, keys: int) -> tuple[Mask | None, Bias | None]:
    """A mask tensor that a model made by itself, as runs and a bias; a bias that is learned keeps its gradient."""
    if tensor.ndim not in (2, 4):
        raise MaskError(
            f'attn_implementation="headscope": the mask is {tuple(tensor.shape)}; '
            "give (batch, 1, queries, keys) booleans or numbers that are added."
        )
    meaning: Meaning = _read(tensor)
    given = None if meaning.runs is None else Given(meaning.runs, keys)
    if not tensor.requires_grad:
        return given, None if meaning.bias is None else dense_bias(meaning.bias)
    # Also where it is 0 everywhere now: a learned bias begins so, and has a gradient.
    seen = None if given is None else given.runs(tensor.shape[-2], keys).block(slice(0, tensor.shape[-2]), 0, keys)
    return given, dense_bias(tensor if seen is None else tensor.masked_fill(~seen, 0.0))


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
    every pair of query and key once. Models that add their masks to their scores by themselves get numbers to add.
    """
    config = others.get("config")
    if config is not None and adds_masks(type(config)):
        return added(locals() | others)
    theirs = masks()
    rule: Callable[..., Any] = theirs.causal if mask_function is None else mask_function
    if torch.compiler.is_compiling() and attention_mask is None and q_offset == kv_offset == 0:
        # One graph for the whole model: what `attention` does without a mask is causality alone, or nothing.
        plain = rule is theirs.bidirectional or rule is theirs.causal
        if plain and q_length == kv_length:
            return None
    sides = None if use_vmap else sides_of(rule)
    if sides is None:
        dense = theirs.dense(
            batch_size,
            q_length,
            kv_length,
            q_offset=cast(int, q_offset),
            kv_offset=kv_offset,
            mask_function=rule,
            attention_mask=attention_mask,
            allow_is_causal_skip=False,
            use_vmap=use_vmap,
            device=device,
        )
        assert dense is not None
        return HandedMask(Given(runs_of(dense), kv_length), batch_size, q_length, kv_length, device)
    given = windowed(sides, q_length, kv_length, q_offset, kv_offset, attention_mask, torch.device(device))
    if given is None:
        if allow_is_bidirectional_skip:
            return None
        given = window(None, None)
    return HandedMask(given, batch_size, q_length, kv_length, device)


def added(given: dict[str, Any]) -> Tensor | None:
    """The mask of "eager": numbers that are added to scores."""
    from transformers import AttentionMaskInterface

    make = AttentionMaskInterface()["eager"]  # type: ignore[no-untyped-call]
    names = ("batch_size", "q_length", "kv_length", "q_offset", "kv_offset", "mask_function", "attention_mask")
    more = ("dtype", "allow_is_bidirectional_skip", "use_vmap", "device")
    found: Tensor | None = make(**{name: given[name] for name in (*names, *more) if given.get(name) is not None})
    return found


def windowed(
    sides: Sides,
    queries: int,
    keys: int,
    q_offset: int | Tensor,
    kv_offset: int,
    attention_mask: Tensor | None,
    device: torch.device,
) -> Mask | None:
    """The mask of a window with padding; None where everyone may see everything."""
    real = masks().padding(attention_mask, keys, kv_offset)
    if real is not None:
        real = real[:, kv_offset : kv_offset + keys].bool()
        real = None if bool(real.all()) else real
    if sides == (None, None) and real is None:
        return None
    if real is None and isinstance(q_offset, int) and q_offset + queries == kv_offset + keys:
        return window(*sides)
    runs = near(sides, queries, keys, q_offset, kv_offset, device)
    if real is not None:
        padding = runs_of(real[:, None, None])
        runs = padding if sides == (None, None) else intersect(runs, padding)
    return Given(runs, keys)


def near(sides: Sides, queries: int, keys: int, q_offset: int | Tensor, kv_offset: int, device: torch.device) -> Runs:
    """The runs of a window, for queries and keys that begin at some position of a longer text."""
    own = torch.arange(queries, device=device, dtype=torch.int32)[None, None, :, None] + q_offset - kv_offset
    left, right = sides
    start = torch.zeros_like(own) if left is None else (own - left).clamp(0, keys)
    stop = torch.full_like(own, keys) if right is None else (own + right + 1).clamp(0, keys)
    return Runs(start.int(), torch.maximum(start, stop).int())
