import pytest
import torch
from torch import nn
from torch.nn import functional as F

import headscope as hs
from headscope.errors import ShapeError
from headscope.nn import (
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    GatedFeedForward,
    KeyValueCache,
    MultiheadAttention,
    PostNorm,
    PreNorm,
)

D = torch.float64


def around(kind: type, dropout: float = 0.0) -> object:
    return lambda part: kind(part, nn.LayerNorm(21, dtype=D), dropout)


def test_where_the_norm_stands() -> None:
    part, norm, x = nn.Linear(21, 21, dtype=D), nn.LayerNorm(21, dtype=D), torch.randn(2, 5, 21, dtype=D)
    torch.testing.assert_close(PreNorm(part, norm)(x), x + part(norm(x)))
    torch.testing.assert_close(PostNorm(part, norm)(x), norm(x + part(x)))


def test_feed_forwards() -> None:
    x = torch.randn(2, 5, 21, dtype=D)
    plain, gated = FeedForward(21, 11, dtype=D), GatedFeedForward(21, 11, dtype=D)
    torch.testing.assert_close(plain(x), plain.down(F.relu(plain.up(x))))
    torch.testing.assert_close(gated(x), gated.down(F.silu(gated.gate(x)) * gated.up(x)))


@pytest.mark.parametrize("kind", [FeedForward, GatedFeedForward])
def test_dropout_is_for_training_only(kind: type) -> None:
    layer = PreNorm(kind(21, 11, dropout=0.5, dtype=D), nn.LayerNorm(21, dtype=D), 0.5)
    x = torch.randn(2, 5, 21, dtype=D)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


@pytest.mark.parametrize("kind", [PreNorm, PostNorm])
def test_a_decoder_layer_with_a_cache(kind: type) -> None:
    layer = DecoderLayer(
        MultiheadAttention(21, 3, dtype=D),
        MultiheadAttention(21, 7, kv_dim=11, dtype=D),
        FeedForward(21, 13, dtype=D),
        around(kind),
    )
    x, memory = torch.randn(2, 5, 21, dtype=D), torch.randn(2, 13, 11, dtype=D)
    mask = hs.padding([13, 7])
    whole = layer(x, memory, mask=hs.causal(), memory_mask=mask)
    cache = KeyValueCache(layer, 2)
    first = layer(x[:, :2], memory, mask=hs.causal(), memory_mask=mask, cache=cache)
    rest = layer(x[:, 2:], mask=hs.causal(), memory_mask=mask, cache=cache)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole)


def test_parts_of_different_widths() -> None:
    with pytest.raises(ShapeError, match="EncoderLayer: an attention goes from width 7 to 21"):
        EncoderLayer(MultiheadAttention(21, 3, input_dim=7), FeedForward(21, 3), around(PreNorm))
    with pytest.raises(ShapeError, match="DecoderLayer: an attention goes from width 15 to 15 and the"):
        DecoderLayer(MultiheadAttention(21, 3), MultiheadAttention(15, 3), FeedForward(21, 3), around(PreNorm))


def test_a_memory_for_a_layer_without_cross_attention() -> None:
    layer = DecoderLayer(MultiheadAttention(21, 3), None, FeedForward(21, 3), around(PreNorm))
    with pytest.raises(ShapeError, match="a memory was given and this layer has no cross-attention"):
        layer(torch.zeros(1, 2, 21), torch.zeros(1, 3, 21))
