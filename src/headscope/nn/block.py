"""A layer of the encoder and one of the decoder: attention and feed-forward, each inside a residual connection."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from headscope.attention.bias import Bias
from headscope.attention.masks.mask import Mask
from headscope.errors import ShapeError
from headscope.nn.cache import KeyValueCache
from headscope.nn.movable import Movable
from headscope.nn.multihead import MultiheadAttention


class Residual(Movable):
    """A part whose output is added to its input; `PreNorm` and `PostNorm` say where the norm stands.

    Args:
        part: attention or feed-forward.
        norm: of the same width.
        dropout: the probability that a number of the part's output is dropped in training.
    """

    def __init__(self, part: nn.Module, norm: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.part, self.norm, self.dropout = part, norm, dropout

    def drop(self, x: Tensor) -> Tensor:
        """Dropout, in training."""
        return F.dropout(x, self.dropout) if self.dropout and self.training else x


class PreNorm(Residual):
    """`x + part(norm(x))`.

    Source: Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture".

    Example:
        >>> PreNorm(nn.Linear(3, 3), nn.LayerNorm(3))(torch.zeros(1, 2, 3)).shape
        torch.Size([1, 2, 3])
    """

    def forward(self, x: Float[Tensor, "b n m"], *args: object, **options: object) -> Float[Tensor, "b n m"]:
        """The part on the normed input, added to the input."""
        return x + self.drop(self.part(self.norm(x), *args, **options))


class PostNorm(Residual):
    """`norm(x + part(x))`, as in the paper.

    Source: Vaswani et al. 2017, §3.1.

    Example:
        >>> PostNorm(nn.Linear(3, 3), nn.LayerNorm(3))(torch.zeros(1, 2, 3)).shape
        torch.Size([1, 2, 3])
    """

    def forward(self, x: Float[Tensor, "b n m"], *args: object, **options: object) -> Float[Tensor, "b n m"]:
        """The part's output added to the input, normed."""
        return self.norm(x + self.drop(self.part(x, *args, **options)))  # type: ignore[no-any-return]


class FeedForward(Movable):
    """Two linear maps with a nonlinearity between them, on each position alone.

    Args:
        embed_dim: the width of input and output.
        hidden_dim: the width in between.
        activation: a function of numbers.
        bias: whether the two maps add something.
        dropout: the probability that a number in between is dropped in training.

    Source: Vaswani et al. 2017, §3.3.

    Example:
        >>> FeedForward(3, 12)(torch.zeros(2, 5, 3)).shape
        torch.Size([2, 5, 3])
    """

    def __init__(
        self,
        embed_dim: int,
        hidden_dim: int,
        activation: Callable[[Tensor], Tensor] = F.relu,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.up = nn.Linear(embed_dim, hidden_dim, bias, device, dtype)
        self.down = nn.Linear(hidden_dim, embed_dim, bias, device, dtype)
        self.activation, self.dropout = activation, dropout

    def forward(self, x: Float[Tensor, "b n m"]) -> Float[Tensor, "b n m"]:
        """Up, nonlinearity, down."""
        hidden = self.activation(self.up(x))
        if self.dropout and self.training:
            hidden = F.dropout(hidden, self.dropout)
        return self.down(hidden)  # type: ignore[no-any-return]


class GatedFeedForward(FeedForward):
    """A feed-forward whose hidden numbers are multiplied by a gate; with SiLU this is SwiGLU.

    Source: Shazeer 2020, "GLU Variants Improve Transformer".

    Example:
        >>> GatedFeedForward(3, 12, F.silu, bias=False)(torch.zeros(2, 5, 3)).shape
        torch.Size([2, 5, 3])
    """

    def __init__(
        self,
        embed_dim: int,
        hidden_dim: int,
        activation: Callable[[Tensor], Tensor] = F.silu,
        *,
        bias: bool = False,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(embed_dim, hidden_dim, activation, bias=bias, dropout=dropout, device=device, dtype=dtype)
        self.gate = nn.Linear(embed_dim, hidden_dim, bias, device, dtype)

    def forward(self, x: Float[Tensor, "b n m"]) -> Float[Tensor, "b n m"]:
        """Up, times the nonlinear gate, down."""
        hidden = self.activation(self.gate(x)) * self.up(x)
        if self.dropout and self.training:
            hidden = F.dropout(hidden, self.dropout)
        return self.down(hidden)  # type: ignore[no-any-return]


Around = Callable[[nn.Module], Residual]


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
        x = self.attention(x, mask=mask, bias=bias, cache=cache, **placed(self.attention, positions))
        if self.cross is not None:
            x = self.cross(x, memory, mask=memory_mask, cache=cache)
        return self.feed_forward(x)  # type: ignore[no-any-return]


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
