"""Stand-ins with the signatures of flash-attn and xformers, which compute with SDPA over a mask that is written out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def attention(q, k, v, scale, causal, window, softcap, alibi) -> Tensor:
    """One batch, `(b, s, h, d)`, with masks aligned to the end."""
    left, right = window
    right = 0 if causal else right
    own = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]
    j = torch.arange(k.shape[1])
    seen = torch.ones(len(own), len(j), dtype=torch.bool)
    seen &= (j >= own - left) if left >= 0 else seen
    seen &= (j <= own + right) if right >= 0 else seen
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    bias = torch.zeros(1, 1, *seen.shape)
    if alibi is not None:
        bias = -alibi.reshape(-1, q.shape[1], 1, 1) * (own - j).abs()
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if softcap:
        scores = softcap * torch.tanh(q @ k.mT * scale / softcap) + bias
        return ((scores.masked_fill(~seen, -torch.inf)).softmax(-1).nan_to_num() @ v).transpose(1, 2)
    out = F.scaled_dot_product_attention(q, k, v, bias.masked_fill(~seen, -torch.inf), scale=scale)
    return out.nan_to_num().transpose(1, 2)


def flash_attn_func(
    q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
    deterministic=False, return_attn_probs=False,
):  # fmt: skip
    return attention(q, k, v, softmax_scale, causal, window_size, softcap, alibi_slopes)


def flash_attn_qkvpacked_func(
    qkv, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
    deterministic=False, return_attn_probs=False,
):  # fmt: skip
    return attention(*qkv.unbind(2), softmax_scale, causal, window_size, softcap, alibi_slopes)


def flash_attn_kvpacked_func(
    q, kv, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
    deterministic=False, return_attn_probs=False,
):  # fmt: skip
    return attention(q, *kv.unbind(2), softmax_scale, causal, window_size, softcap, alibi_slopes)


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False,
    window_size=(-1, -1), softcap=0.0, alibi_slopes=None, deterministic=False, return_attn_probs=False,
    block_table=None,
):  # fmt: skip
    parts = []
    for a, b, c, d in zip(cu_seqlens_q, cu_seqlens_q[1:], cu_seqlens_k, cu_seqlens_k[1:], strict=False):
        part = q[None, a:b], k[None, c:d], v[None, c:d]
        parts.append(attention(*part, softmax_scale, causal, window_size, softcap, alibi_slopes)[0])
    return torch.cat(parts)


def flash_attn_varlen_qkvpacked_func(
    qkv, cu_seqlens, max_seqlen, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
    alibi_slopes=None, deterministic=False, return_attn_probs=False,
):  # fmt: skip
    q, k, v = qkv.unbind(1)
    sizes = (cu_seqlens, cu_seqlens, max_seqlen, max_seqlen)
    return flash_attn_varlen_func(q, k, v, *sizes, 0.0, softmax_scale, causal, window_size, softcap, alibi_slopes)


def flash_attn_with_kvcache(
    q, k_cache, v_cache, k=None, v=None, rotary_cos=None, rotary_sin=None, cache_seqlens=None, cache_batch_idx=None,
    cache_leftpad=None, block_table=None, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
    rotary_interleaved=True, alibi_slopes=None, num_splits=0, return_softmax_lse=False,
):  # fmt: skip
    out = []
    for b in range(len(q)):
        slot = b if cache_batch_idx is None else int(cache_batch_idx[b])
        start = int(cache_seqlens if isinstance(cache_seqlens, int) else cache_seqlens[b])
        query = q[b]
        stop = start
        if rotary_cos is not None:
            at = start + torch.arange(len(query)) * int(causal or window_size != (-1, -1))
            query = rotate(query, rotary_cos[at], rotary_sin[at], rotary_interleaved)
        if k is not None:
            stop = start + k.shape[1]
            at = torch.arange(start, stop)
            new = k[b] if rotary_cos is None else rotate(k[b], rotary_cos[at], rotary_sin[at], rotary_interleaved)
            if block_table is None:
                k_cache[slot, start:stop], v_cache[slot, start:stop] = new, v[b]
        if block_table is None:
            keys, values = k_cache[slot], v_cache[slot]
        else:
            keys, values = (x[block_table[b]].flatten(0, 1) for x in (k_cache, v_cache))
        first = 0 if cache_leftpad is None else int(cache_leftpad[b])
        given = query[None], keys[None, first:stop], values[None, first:stop]
        out.append(attention(*given, softmax_scale, causal, window_size, softcap, alibi_slopes)[0])
    return torch.stack(out)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Rotary positions, written with complex numbers."""
    size = 2 * cos.shape[-1]
    pairs = x[..., :size].unflatten(-1, (-1, 2)) if interleaved else x[..., :size].unflatten(-1, (2, -1)).mT
    turned = torch.view_as_complex(pairs.contiguous()) * torch.complex(cos, sin)[:, None]
    pairs = torch.view_as_real(turned)
    return torch.cat([pairs.flatten(-2) if interleaved else pairs.mT.flatten(-2), x[..., size:]], -1)


class LowerTriangularMask:
    """Causal, counted from the start."""

    def materialize(self, shape, dtype=torch.float32, device="cpu"):
        return torch.full(shape, -torch.inf, dtype=dtype, device=device).triu(1)


class LowerTriangularFromBottomRightMask(LowerTriangularMask):
    """Causal, aligned to the end."""

    def materialize(self, shape, dtype=torch.float32, device="cpu"):
        return torch.full(shape, -torch.inf, dtype=dtype, device=device).triu(1 + shape[-1] - shape[-2])


class BlockDiagonalMask(LowerTriangularMask):
    """Texts one behind the other."""

    lengths = (2, 4), (3, 4)

    def materialize(self, shape, dtype=torch.float32, device="cpu"):
        blocks = [torch.ones(q, k) for q, k in zip(*self.lengths, strict=True)]
        return torch.where(torch.block_diag(*blocks) == 1, 0.0, -torch.inf).expand(shape)


def memory_efficient_attention(query, key, value, attn_bias=None, p=0.0, scale=None, *, op=None, output_dtype=None):
    rank = query.ndim
    shape = query.shape
    if rank == 3:
        query, key, value = (x[:, :, None] for x in (query, key, value))
    if rank == 5:
        query, key, value = (x.flatten(2, 3) for x in (query, key, value))
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    if attn_bias is not None and not isinstance(attn_bias, Tensor):
        attn_bias = attn_bias.materialize((1, 1, query.shape[2], key.shape[2]))
    out = F.scaled_dot_product_attention(query, key, value, attn_bias, scale=scale).transpose(1, 2)
    return out.reshape(*shape[:-1], value.shape[-1])
