"""The parts of torch's encoder and decoder layers, as ours."""

from __future__ import annotations

from torch import nn

from headscope.nn.convertible import copied, probability
from headscope.nn.feed_forward import FeedForward
from headscope.nn.residual import Around, PostNorm, PreNorm, Residual

TorchLayer = nn.TransformerEncoderLayer | nn.TransformerDecoderLayer


def feed_forward(theirs: TorchLayer) -> FeedForward:
    """The feed-forward of a layer."""
    activation = theirs.activation
    # Without numbers: both maps are theirs.
    made = FeedForward(
        1,
        1,
        copied(activation, "the activation") if isinstance(activation, nn.Module) else activation,
        dropout=probability(theirs.dropout, "the dropout"),
        device="meta",
    )
    made.up, made.down = copied(theirs.linear1, "linear1"), copied(theirs.linear2, "linear2")
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
        return kind(part, copied(norm, "a norm"), probability(dropout, "a dropout"))

    return put
