"""The residual connection around a part of a layer, and where its norm stands."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from headscope.nn.movable import Movable


class Residual(Movable):
    """A part whose output is added to its input, with a norm before the part (`PreNorm`) or after the sum (`PostNorm`).

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
        >>> import torch
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
        >>> import torch
        >>> PostNorm(nn.Linear(3, 3), nn.LayerNorm(3))(torch.zeros(1, 2, 3)).shape
        torch.Size([1, 2, 3])
    """

    def forward(self, x: Float[Tensor, "b n m"], *args: object, **options: object) -> Float[Tensor, "b n m"]:
        """The part's output added to the input, normed."""
        return self.norm(x + self.drop(self.part(x, *args, **options)))  # type: ignore[no-any-return]


# Puts a part into its residual connection.
Around = Callable[[nn.Module], Residual]
