"""The layers of `torch.nn.Transformer`, as ours."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from headscope.errors import ModelError
from headscope.nn.block import Around, DecoderLayer, EncoderLayer, FeedForward, PostNorm, PreNorm, Residual
from headscope.nn.multihead import MultiheadAttention


def encoder(theirs: nn.Module) -> tuple[list[EncoderLayer], nn.Module | None]:
    """The layers and the norm of an `nn.TransformerEncoder`."""
    if not isinstance(theirs, nn.TransformerEncoder):
        raise ModelError(f"from_torch: the encoder is a {type(theirs).__name__}; this converts nn.TransformerEncoder.")
    return [encoder_layer(layer) for layer in theirs.layers], copy.deepcopy(theirs.norm)


def decoder(theirs: nn.Module) -> tuple[list[DecoderLayer], nn.Module | None]:
    """The layers and the norm of an `nn.TransformerDecoder`."""
    if not isinstance(theirs, nn.TransformerDecoder):
        raise ModelError(f"from_torch: the decoder is a {type(theirs).__name__}; this converts nn.TransformerDecoder.")
    return [decoder_layer(layer) for layer in theirs.layers], copy.deepcopy(theirs.norm)


def encoder_layer(theirs: nn.Module) -> EncoderLayer:
    """An `nn.TransformerEncoderLayer` as ours."""
    if not isinstance(theirs, nn.TransformerEncoderLayer):
        raise ModelError(f"from_torch: a layer is a {type(theirs).__name__}; this converts nn.TransformerEncoderLayer.")
    made = EncoderLayer(MultiheadAttention.from_torch(theirs.self_attn), feed_forward(theirs), residual(theirs))
    dress([(made.attention, theirs.norm1, theirs.dropout1), (made.feed_forward, theirs.norm2, theirs.dropout2)])
    return made.train(theirs.training)


def decoder_layer(theirs: nn.Module) -> DecoderLayer:
    """An `nn.TransformerDecoderLayer` as ours; the layer that attends to the memory is laid out for that."""
    if not isinstance(theirs, nn.TransformerDecoderLayer):
        raise ModelError(f"from_torch: a layer is a {type(theirs).__name__}; this converts nn.TransformerDecoderLayer.")
    packed = MultiheadAttention.from_torch(theirs.multihead_attn)
    dim, weight = packed.embed_dim, packed.output.weight
    cross = MultiheadAttention(
        dim,
        packed.num_heads,
        kv_dim=dim,
        bias=theirs.multihead_attn.in_proj_bias is not None,
        dropout=packed.dropout,
        device=weight.device,
        dtype=weight.dtype,
    )
    cross.load_state_dict(packed.state_dict())
    attention = MultiheadAttention.from_torch(theirs.self_attn)
    made = DecoderLayer(attention, cross, feed_forward(theirs), residual(theirs))
    assert made.cross is not None
    norms = (theirs.norm1, theirs.norm2, theirs.norm3)
    rates = (theirs.dropout1, theirs.dropout2, theirs.dropout3)
    dress(list(zip((made.attention, made.cross, made.feed_forward), norms, rates, strict=True)))
    return made.train(theirs.training)


TorchLayer = nn.TransformerEncoderLayer | nn.TransformerDecoderLayer


def residual(theirs: TorchLayer) -> Around:
    """Where the norm stands; the norms and rates of dropout themselves are put in afterwards."""
    kind: type[Residual] = PreNorm if theirs.norm_first else PostNorm
    return lambda part: kind(part, nn.Identity())


def feed_forward(theirs: TorchLayer) -> FeedForward:
    """The feed-forward of a layer of torch."""
    up = theirs.linear1
    made = FeedForward(
        up.in_features,
        up.out_features,
        theirs.activation,
        bias=any(name == "bias" for name, _ in up.named_parameters()),
        dropout=theirs.dropout.p,
        device=up.weight.device,
        dtype=up.weight.dtype,
    )
    made.up.load_state_dict(up.state_dict())
    made.down.load_state_dict(theirs.linear2.state_dict())
    return made


def dress(own: Sequence[tuple[Residual, nn.Module, nn.Dropout]]) -> None:
    """Give each residual connection its norm and its rate of dropout."""
    for where, norm, dropout in own:
        where.norm, where.dropout = copy.deepcopy(norm), dropout.p
