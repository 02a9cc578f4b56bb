"""Well-known models as compositions of the parts: to use as they are, and to read before composing one's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.nn import functional as F

from headscope.nn.block import DecoderLayer, EncoderLayer
from headscope.nn.embedding import Embedding, LearnedPositions, SinusoidalPositions, TiedOutput
from headscope.nn.feed_forward import FeedForward, GatedFeedForward
from headscope.nn.multihead import MultiheadAttention
from headscope.nn.residual import PostNorm, PreNorm, Residual
from headscope.nn.rotary import Rotary
from headscope.nn.transformer import Decoder, Encoder, Transformer


def paper(
    vocabulary: int,
    *,
    embed_dim: int = 512,
    num_heads: int = 8,
    layers: int = 6,
    hidden_dim: int = 2048,
    dropout: float = 0.1,
    max_positions: int = 1024,
    **where: Any,
) -> Transformer:
    """The base model of the paper: encoder and decoder, post-norm, ReLU, sines, one table for all the tokens.

    Source: Vaswani et al. 2017, table 3.

    Example:
        >>> sum(p.numel() for p in paper(37_000, device="meta").parameters()) // 10**6  # the paper says 65 million
        63
    """
    attend = partial(MultiheadAttention, embed_dim, num_heads, **where)
    around = residual(PostNorm, partial(nn.LayerNorm, embed_dim, **where), dropout)

    def feed() -> FeedForward:
        return FeedForward(embed_dim, hidden_dim, **where)

    positions = SinusoidalPositions(max_positions, embed_dim, **where)
    embedding = Embedding(vocabulary, embed_dim, positions, scale=embed_dim**0.5, dropout=dropout, **where)
    encoder = Encoder(EncoderLayer(attend(), feed(), around) for _ in range(layers))
    decoder = Decoder(DecoderLayer(attend(), attend(kv_dim=embed_dim), feed(), around) for _ in range(layers))
    return Transformer(decoder, encoder, target=embedding, source=embedding, output=TiedOutput(embedding))


def gpt2(
    vocabulary: int = 50257,
    *,
    embed_dim: int = 768,
    num_heads: int = 12,
    layers: int = 12,
    dropout: float = 0.1,
    max_positions: int = 1024,
    **where: Any,
) -> Transformer:
    """The language model GPT-2: a decoder alone, pre-norm, GELU, learned positions, tied output.

    Source: Radford et al. 2019.

    Example:
        >>> sum(p.numel() for p in gpt2(device="meta").parameters()) // 10**6
        124
    """
    attend = partial(MultiheadAttention, embed_dim, num_heads, dropout=dropout, **where)
    norm = partial(nn.LayerNorm, embed_dim, **where)
    around = residual(PreNorm, norm, dropout)

    def feed() -> FeedForward:
        return FeedForward(embed_dim, 4 * embed_dim, partial(F.gelu, approximate="tanh"), **where)

    positions = LearnedPositions(max_positions, embed_dim, **where)
    embedding = Embedding(vocabulary, embed_dim, positions, dropout=dropout, **where)
    decoder = Decoder((DecoderLayer(attend(), None, feed(), around) for _ in range(layers)), norm())
    return Transformer(decoder, target=embedding, output=TiedOutput(embedding))


def llama(
    vocabulary: int,
    *,
    embed_dim: int,
    num_heads: int,
    num_kv_heads: int,
    layers: int,
    hidden_dim: int,
    rotary: Rotary | None = None,
    **where: Any,
) -> Transformer:
    """The language model Llama: pre-norm with RMSNorm, SwiGLU, rotary positions, grouped queries, no biases.

    Source: Touvron et al. 2023.

    Example:
        >>> import torch
        >>> model = llama(11, embed_dim=8, num_heads=4, num_kv_heads=2, layers=2, hidden_dim=20)
        >>> model(torch.tensor([[1, 2, 3]])).shape
        torch.Size([1, 3, 11])
    """
    rotary = Rotary(embed_dim // num_heads, device=where.get("device")) if rotary is None else rotary
    attend = partial(
        MultiheadAttention, embed_dim, num_heads, num_kv_heads=num_kv_heads, rotary=rotary, bias=False, **where
    )
    norm = partial(nn.RMSNorm, embed_dim, eps=1e-6, **where)

    def layer() -> DecoderLayer:
        return DecoderLayer(attend(), None, GatedFeedForward(embed_dim, hidden_dim, **where), residual(PreNorm, norm))

    decoder = Decoder((layer() for _ in range(layers)), norm())
    output = nn.Linear(embed_dim, vocabulary, False, **where)
    return Transformer(decoder, target=Embedding(vocabulary, embed_dim, **where), output=output)


def residual(
    kind: type[Residual], norm: Callable[[], nn.Module], dropout: float = 0.0
) -> Callable[[nn.Module], Residual]:
    """Puts parts into residual connections of one kind, each with a norm of its own."""
    return lambda part: kind(part, norm(), dropout)
