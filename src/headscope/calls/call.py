"""What an attention call looks like at each of the places we listen at: its arguments -> q, k, v, runs, bias, scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention.bias import Bias
from headscope.attention.masks.mask import Mask
from headscope.attention.masks.runs import Runs, intersect
from headscope.attention.masks.tensors import Meaning, Reader, causal_from_the_start


@dataclass
class Call:
    """One attention call, as it was; the tensors are still the model's own.

    Shapes:
        q `(b, h, q, d)`, k `(b, g, k, d)`, v `(b, g, k, e)`, runs `(b|1, h|1, q|1, r)`, bias `(b|1, h|1, q|1, k)`.

    Attributes:
        cross: whether queries and keys come from different places; None where the call does not tell.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    runs: Runs | None
    bias: Tensor | None
    scale: float
    softcap: float | None = None
    sinks: Tensor | None = None
    cross: bool | None = None
    source: Literal["call", "weights"] = "call"


def sdpa(
    read: Reader,
    heads: int | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Call:
    """A call of `F.scaled_dot_product_attention`.

    Args:
        heads: how many heads the calling module has; tells them from the batch where q, k and v have three axes.
    """
    leading = torch.broadcast_shapes(query.shape[:-3], key.shape[:-3], value.shape[:-3])  # type: ignore[no-untyped-call]
    q, k, v = (four_axes(x, leading, heads) for x in (query, key, value))
    runs = causal_from_the_start(q.shape[2], k.shape[2], q.device) if is_causal else None
    meaning = Meaning(None, None)
    if attn_mask is not None:
        if attn_mask.shape[-1] != k.shape[2]:
            attn_mask = attn_mask.expand(*attn_mask.shape[:-1], k.shape[2])
        meaning = read(attn_mask if query.ndim == 4 else mask_axes(attn_mask, query.ndim, leading, heads))
    return Call(
        q, k, v, both(runs, meaning.runs), meaning.bias, scale if scale is not None else 1.0 / math.sqrt(q.shape[3])
    )


def four_axes(x: Tensor, leading: torch.Size, heads: int | None) -> Tensor:
    """`(batch, heads, positions, size)` from two, three or more axes."""
    if x.ndim == 3:
        return x.reshape(-1, heads, *x.shape[1:]) if heads and x.shape[0] % heads == 0 else x[:, None]
    if x.ndim == 2:
        return x[None, None]
    x = x.expand(*leading, *x.shape[-3:])
    return x if x.ndim == 4 else x.reshape(-1, *x.shape[-3:])


def mask_axes(mask: Tensor, rank: int, leading: torch.Size, heads: int | None) -> Tensor:
    """A mask for q, k and v of another rank than four, with the axes that `four_axes` gives them."""
    if rank == 3 and mask.ndim == 3:
        if mask.shape[0] == 1:
            return mask[:, None]
        return four_axes(mask, leading, heads)
    if mask.ndim <= 4:
        return mask
    if all(size == 1 for size in mask.shape[:-3]):
        return mask.reshape(1, *mask.shape[-3:])
    return mask.expand(*leading, *mask.shape[-3:]).reshape(-1, *mask.shape[-3:])


def both(a: Runs | None, b: Runs | None) -> Runs | None:
    """The runs that both allow; None allows everything."""
    if a is None or b is None:
        return b if a is None else a
    return intersect(a, b)


def mha(read: Reader, projected: tuple[Tensor, Tensor, Tensor], given: dict[str, Any]) -> Call:
    """A call of `F.multi_head_attention_forward`, from its own projections and the arguments it was given.

    Its masks say who may *not* attend, its learned and its zero key are appended to the others, and its tensors
    are `(positions, batch, size)`.
    """
    q, k, v = (x if x.ndim == 3 else x[:, None] for x in projected)
    count, batch, heads = q.shape[0], q.shape[1], given["num_heads"]
    if given.get("bias_k") is not None:
        k = torch.cat([k, given["bias_k"].repeat(1, batch, 1)])
        v = torch.cat([v, given["bias_v"].repeat(1, batch, 1)])
    q, k, v = (x.reshape(len(x), batch, heads, -1).permute(1, 2, 0, 3) for x in (q, k, v))
    static_k, static_v = given.get("static_k"), given.get("static_v")
    if static_k is not None:
        k = static_k.reshape(batch, heads, *static_k.shape[1:])
    if static_v is not None:
        v = static_v.reshape(batch, heads, *static_v.shape[1:])
    if given.get("add_zero_attn"):
        k, v = pad(k, (0, 0, 0, 1)), pad(v, (0, 0, 0, 1))
    runs = bias = None
    for mask, sizes in ((given.get("attn_mask"), (-1, 1, count)), (given.get("key_padding_mask"), (batch, 1, 1))):
        if mask is None:
            continue
        if mask.ndim == 3 and mask.shape[0] > 1:
            sizes = (batch, heads, count)
        mask = mask.reshape(*sizes, mask.shape[-1])
        # What is appended to the keys may be seen by everyone: a mask is padded with "nothing is added".
        allowed = pad(
            ~mask if mask.dtype == torch.bool else mask,
            (0, k.shape[2] - mask.shape[-1]),
            value=mask.dtype == torch.bool,
        )
        meaning = read(allowed)
        runs = both(runs, meaning.runs)
        if meaning.bias is not None:
            bias = meaning.bias if bias is None else bias + meaning.bias
    cross = given["query"] is not given["key"]
    return Call(q, k, v, runs, bias, 1.0 / math.sqrt(q.shape[3]), cross=cross)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    **_: Any,
) -> Call:
    """A call of `hs.attend` or `hs.attend_lse`."""
    queries, keys = q.shape[2], k.shape[2]
    runs = None if mask is None else mask.runs(queries, keys, q.device)
    added = None if bias is None else bias.block(slice(0, queries), 0, keys, queries, keys).detach()
    return Call(q, k, v, runs, added, scale if scale is not None else q.shape[3] ** -0.5, softcap, sinks)
