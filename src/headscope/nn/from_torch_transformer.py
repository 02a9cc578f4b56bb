"""The parts of torch's encoder and decoder layers, as ours."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TypeVar

from torch import nn

from headscope.errors import ModelError
from headscope.nn.feed_forward import FeedForward
from headscope.nn.multihead import MultiheadAttention
from headscope.nn.residual import Around, PostNorm, PreNorm, Residual

TorchLayer = nn.TransformerEncoderLayer | nn.TransformerDecoderLayer
Theirs = TypeVar("Theirs", bound=nn.Module)
Layer = TypeVar("Layer", bound=nn.Module)


def checked(theirs: nn.Module, kind: type[Theirs], role: str) -> Theirs:
    """A module that is of a kind of torch and computes as that one does; raises `ModelError` for any other."""
    name = type(theirs).__name__
    if not isinstance(theirs, kind):
        raise ModelError(f"from_torch: {role} is a {name}; this converts nn.{kind.__name__}.")
    if type(theirs).forward is not kind.forward:
        raise ModelError(
            f"from_torch: {role} is a {name}, an nn.{kind.__name__} with a forward of its own, which would not be "
            "converted; convert the layers inside, or replace only their attention with hs.nn.replace(model)."
        )
    return theirs


def each_once(layers: Iterable[nn.Module], convert: Callable[[nn.Module], Layer]) -> list[Layer]:
    """Convert layers; one that stands in several places is converted once and stays shared."""
    made: dict[nn.Module, Layer] = {}
    return [made[layer] if layer in made else made.setdefault(layer, convert(layer)) for layer in layers]


def cross_attention(theirs: nn.MultiheadAttention) -> MultiheadAttention:
    """The layer that attends to the memory, with its weights laid out for that."""
    packed = MultiheadAttention.from_torch(theirs)
    dim, weight = packed.embed_dim, packed.output.weight
    cross = MultiheadAttention(
        dim,
        packed.num_heads,
        kv_dim=dim,
        bias=theirs.in_proj_bias is not None,
        dropout=packed.dropout,
        device=weight.device,
        dtype=weight.dtype,
    )
    cross.load_state_dict(packed.state_dict())
    return cross


def feed_forward(theirs: TorchLayer) -> FeedForward:
    """The feed-forward of a layer."""
    up, activation = theirs.linear1, theirs.activation
    made = FeedForward(
        up.in_features,
        up.out_features,
        copy.deepcopy(activation) if isinstance(activation, nn.Module) else activation,
        bias=any(name == "bias" for name, _ in up.named_parameters()),
        dropout=theirs.dropout.p,
        device=up.weight.device,
        dtype=up.weight.dtype,
    )
    made.up.load_state_dict(up.state_dict())
    made.down.load_state_dict(theirs.linear2.state_dict())
    return made


def around(theirs: TorchLayer) -> Around:
    """Puts the parts of a layer, in their order, into residual connections with the layer's norms and dropout."""
    kind: type[Residual] = PreNorm if theirs.norm_first else PostNorm
    own = [(theirs.norm1, theirs.dropout1), (theirs.norm2, theirs.dropout2)]
    if isinstance(theirs, nn.TransformerDecoderLayer):
        own.append((theirs.norm3, theirs.dropout3))
    following = iter(own)

    def put(part: nn.Module) -> Residual:
        norm, dropout = next(following)
        return kind(part, copy.deepcopy(norm), dropout.p)

    return put
