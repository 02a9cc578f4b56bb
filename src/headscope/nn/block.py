"""A layer of the encoder and one of the decoder: attention and feed-forward, each inside a residual connection."""

from __future__ import annotations

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from headscope.attention.bias import Bias
from headscope.attention.masks.mask import Mask
from headscope.errors import ShapeError
from headscope.nn import from_torch_transformer
from headscope.nn.cache import KeyValueCache
from headscope.nn.convertible import checked
from headscope.nn.intact import intact
from headscope.nn.movable import Movable
from headscope.nn.multihead import MultiheadAttention
from headscope.nn.residual import Around


class EncoderLayer(Movable):
    """Self-attention, then feed-forward.

    Args:
        attention: the layer that attends.
        feed_forward: a part from width to the same width.
        around: puts a part into its residual connection: `lambda part: PostNorm(part, nn.LayerNorm(512))`.

    Shapes:
        x `(b, n, m)` → `(b, n, m)`.

    Raises:
        ShapeError: the parts have different widths.

    Source: Vaswani et al. 2017, §3.1.

    Example:
        >>> import torch
        >>> from headscope.nn import FeedForward, PostNorm
        >>> parts = MultiheadAttention(6, 2), FeedForward(6, 24)
        >>> layer = EncoderLayer(*parts, lambda part: PostNorm(part, nn.LayerNorm(6)))
        >>> layer(torch.zeros(2, 5, 6)).shape
        torch.Size([2, 5, 6])
    """

    def __init__(self, attention: MultiheadAttention, feed_forward: nn.Module, around: Around) -> None:
        super().__init__()
        check_widths(type(self).__name__, attention)
        self.attention, self.feed_forward = around(attention), around(feed_forward)

    def forward(
        self,
        x: Float[Tensor, "b n m"],
        *,
        mask: Mask | None = None,
        bias: Bias | None = None,
        positions: Shaped[Tensor, "*at"] | None = None,
    ) -> Float[Tensor, "b n m"]:
        """Every position looks at every one that the mask allows."""
        x = self.attention(x, mask=mask, bias=bias, **placed(self.attention, positions))
        return self.feed_forward(x)  # type: ignore[no-any-return]

    @classmethod
    def from_torch(cls, layer: nn.Module) -> EncoderLayer:
        """The same layer with the same weights, from torch's.

        It takes `(batch, positions, width)` whatever `batch_first` was there, and masks of headscope.

        Raises:
            ModelError: another kind of layer, or one with methods, hooks or parametrizations of its own.

        Example:
            >>> import torch
            >>> theirs = nn.TransformerEncoderLayer(6, 2, 24, norm_first=True, batch_first=True).eval()
            >>> ours, x = EncoderLayer.from_torch(theirs), torch.randn(2, 5, 6)
            >>> bool((ours(x) - theirs(x)).abs().max() < 1e-5)
            True
        """
        theirs = checked(layer, nn.TransformerEncoderLayer, "the layer")
        attention = MultiheadAttention.from_torch(theirs.self_attn)
        feed_forward, around = from_torch_transformer.feed_forward(theirs), from_torch_transformer.around(theirs)
        return cls(attention, feed_forward, around).train(theirs.training)


class DecoderLayer(Movable):
    """Masked self-attention, attention to a memory where the layer has one, then feed-forward.

    Args:
        attention: the layer that attends to the positions before.
        cross: the layer that attends to the memory; None in a decoder without an encoder.
        feed_forward: a part from width to the same width.
        around: puts a part into its residual connection.

    Shapes:
        x `(b, n, m)`, memory `(b, k, kv_dim)` → `(b, n, m)`.

    Raises:
        ShapeError: the parts have different widths; a memory for a layer without cross-attention.

    Source: Vaswani et al. 2017, §3.1.

    Example:
        >>> import torch
        >>> from headscope.nn import FeedForward, PreNorm
        >>> parts = MultiheadAttention(6, 2), MultiheadAttention(6, 2, kv_dim=10), FeedForward(6, 24)
        >>> layer = DecoderLayer(*parts, lambda part: PreNorm(part, nn.LayerNorm(6)))
        >>> layer(torch.zeros(2, 5, 6), torch.zeros(2, 7, 10)).shape
        torch.Size([2, 5, 6])
    """

    def __init__(
        self, attention: MultiheadAttention, cross: MultiheadAttention | None, feed_forward: nn.Module, around: Around
    ) -> None:
        super().__init__()
        check_widths(type(self).__name__, attention, *(() if cross is None else (cross,)))
        self.attention = around(attention)
        self.cross = None if cross is None else around(cross)
        self.feed_forward = around(feed_forward)

    def forward(
        self,
        x: Float[Tensor, "b n m"],
        memory: Float[Tensor, "b k _"] | None = None,
        *,
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
        bias: Bias | None = None,
        cache: KeyValueCache | None = None,
        positions: Shaped[Tensor, "*at"] | None = None,
    ) -> Float[Tensor, "b n m"]:
        """Every position looks at what the mask allows of x, then at what `memory_mask` allows of the memory."""
        if self.cross is None and memory is not None:
            raise ShapeError(
                "DecoderLayer: a memory was given and this layer has no cross-attention; give cross=… to it."
            )
        with intact(cache):
            x = self.attention(x, mask=mask, bias=bias, cache=cache, **placed(self.attention, positions))
            if self.cross is not None:
                x = self.cross(x, memory, mask=memory_mask, cache=cache)
            return self.feed_forward(x)  # type: ignore[no-any-return]

    @classmethod
    def from_torch(cls, layer: nn.Module) -> DecoderLayer:
        """The same layer with the same weights, from torch's; without a mask it sees everything, as there.

        It takes `(batch, positions, width)` whatever `batch_first` was there, and masks of headscope.

        Raises:
            ModelError: another kind of layer, or one with methods, hooks or parametrizations of its own.

        Example:
            >>> import torch
            >>> theirs = nn.TransformerDecoderLayer(6, 2, 24, batch_first=True).eval()
            >>> ours, x, memory = DecoderLayer.from_torch(theirs), torch.randn(2, 5, 6), torch.randn(2, 7, 6)
            >>> bool((ours(x, memory) - theirs(x, memory)).abs().max() < 1e-5)
            True
        """
        theirs = checked(layer, nn.TransformerDecoderLayer, "the layer")
        attention = MultiheadAttention.from_torch(theirs.self_attn)
        cross = MultiheadAttention.from_torch(theirs.multihead_attn, of_memory=True)
        feed_forward, around = from_torch_transformer.feed_forward(theirs), from_torch_transformer.around(theirs)
        return cls(attention, cross, feed_forward, around).train(theirs.training)


def placed(part: nn.Module, positions: Tensor | None) -> dict[str, Tensor]:
    """The positions as a call argument, for a part that has a use for them: rotary ones, and not for all layers."""
    return {} if positions is None or not uses_positions(part) else {"positions": positions}


def uses_positions(part: nn.Module) -> bool:
    """Whether an attention layer inside of a part turns queries and keys by their positions."""
    return any(isinstance(m, MultiheadAttention) and m.rotary is not None for m in part.modules())


def check_widths(where: str, first: MultiheadAttention, *layers: MultiheadAttention) -> None:
    """Raise `ShapeError` unless inputs and outputs of the layers can be added to one another."""
    for layer in (first, *layers):
        if layer.embed_dim != layer.project.input_dim or layer.embed_dim != first.embed_dim:
            raise ShapeError(
                f"{where}: an attention goes from width {layer.project.input_dim} to {layer.embed_dim} and the "
                f"layer has width {first.embed_dim}; a residual connection adds the two: give all one width."
            )
