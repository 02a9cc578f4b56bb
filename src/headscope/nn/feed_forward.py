"""The feed-forward part of a layer, on each position alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from headscope.nn.movable import Movable


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
