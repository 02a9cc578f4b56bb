"""`attn_implementation="headscope"`: transformers models that run on `hs.attend`, with runs of keys in place of dense
masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headscope.attention.api import attend
from headscope.attention.bias import Bias, dense_bias
from headscope.attention.known import known
from headscope.attention.masks.mask import Dense, Intervals, Mask
from headscope.attention.masks.tensors import Meaning, Reader, split
from headscope.attention.masks.window import causal
from headscope.compat.transformers import captures_weights, without_sdpa
from headscope.errors import BackendRefused, MaskError, MissingExtra
from headscope.hf.lazy_mask import LazyMask
from headscope.hf.mask_function import mask
from headscope.hf.returned_weights import returned_weights, unasked

NAME = "headscope"

_read = Reader()


def register() -> None:
    """Make `attn_implementation="headscope"` known to transformers; calling it again changes nothing.

    Both halves are registered: the attention function, and the mask function without which transformers would pass
    no mask at all, and lose causality silently.

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
) -> tuple[Tensor, Tensor | None]:
    """The attention function: values as `(b, q, h, e)`, and the weights `(b, h, q, k)` where the model asks for them.

    Weights are asked for with `output_attentions=True`. They are exact and before dropout, need memory for every pair
    of query and key, and are computed beside the values, which stay what they are without them. `hs.record` gives any
    weight in O(N) memory.

    Raises:
        BackendRefused: continuous batching, whose keys are scattered over pages; sinks that differ between queries.
        MaskError: a mask for fewer keys than there are.
    """
    refuse(others)
    if query.shape[0] != key.shape[0]:
        b = max(query.shape[0], key.shape[0])
        query, key, value = (x.expand(b, *x.shape[1:]) for x in (query, key, value))
    queries, room = query.shape[2], key.shape[2]
    bias: Bias | None = None
    who: Mask | None = None
    if isinstance(attention_mask, LazyMask) and attention_mask.keys == room:
        who = attention_mask.mask
    elif attention_mask is not None:
        who, bias = from_tensor(for_keys(attention_mask, room), room)
    elif queries > 1 and causal_alone(module, is_causal):
        # Without a mask, causality is counted from the first key, as in SDPA: later keys are room for what is to come.
        key, value = key[:, :, :queries], value[:, :, :queries]
        who = causal()
    if position_bias is not None:
        keys = key.shape[2]
        added = position_bias[..., :keys]
        bias = dense_bias(added if bias is None else added + bias.block(slice(0, queries), 0, keys, queries, keys))
    sinks = None if s_aux is None else s_aux.to(query.dtype)
    changes: dict[str, Any] = {"mask": who, "bias": bias, "scale": scaling, "softcap": softcap, "sinks": sinks}
    values = attend(query, key, value, **changes, dropout=dropout).transpose(1, 2).contiguous()
    wanted = others.get("output_attentions") or captures_weights() or unasked(module)
    return values, returned_weights(query, key, value, room, **changes) if wanted else None


def refuse(others: dict[str, Any]) -> None:
    """Raise `BackendRefused` for what a model passes and headscope does not compute."""
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


def causal_alone(module: torch.nn.Module, is_causal: bool | None) -> bool:
    """Whether no mask means that a query sees the keys up to its own, as on "sdpa".

    A model without sdpa was written for "eager", where no mask hides nothing.
    """
    config = getattr(module, "config", None)
    if config is not None and without_sdpa(type(config)):
        return False
    return bool(is_causal if is_causal is not None else getattr(module, "is_causal", True))


def for_keys(mask: Tensor, keys: int) -> Tensor:
    """A mask for so many keys: cut where it is for more, and one column for all keys repeated, as torch repeats it.

    Raises:
        MaskError: a mask for fewer keys than there are.
    """
    columns = mask.shape[-1]
    if columns == keys:
        return mask
    if columns == 1:
        return mask.expand(*mask.shape[:-1], keys)
    if columns < keys:
        raise MaskError(
            f'attn_implementation="headscope": the mask is {tuple(mask.shape)} and there are {keys} keys; '
            "give a column for each key, or one for all."
        )
    return mask[..., :keys]


def from_tensor(tensor: Tensor, keys: int) -> tuple[Mask | None, Bias | None]:
    """A mask tensor that a model made by itself, as runs and a bias; a bias that is learned keeps its gradient."""
    if tensor.ndim not in (2, 4):
        raise MaskError(
            f'attn_implementation="headscope": the mask is {tuple(tensor.shape)}; '
            "give (batch, 1, queries, keys) booleans or numbers that are added."
        )
    if not known(tensor):
        tensor = tensor if tensor.ndim == 4 else tensor[None, None]
        allowed, added = (tensor, None) if tensor.dtype == torch.bool else split(tensor)
        return Dense(allowed), None if added is None else dense_bias(added)
    meaning: Meaning = _read(tensor)
    who = None if meaning.runs is None else Intervals(meaning.runs, keys)
    if not tensor.requires_grad:
        return who, None if meaning.bias is None else dense_bias(meaning.bias)
    # Also where it is 0 everywhere now: a learned bias begins so, and has a gradient.
    seen = None if who is None else who.runs(tensor.shape[-2], keys).block(slice(0, tensor.shape[-2]), 0, keys)
    return who, dense_bias(tensor if seen is None else tensor.masked_fill(~seen, 0.0))
