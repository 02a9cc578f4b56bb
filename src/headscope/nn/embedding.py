"""Tokens to vectors, and where they stand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from headscope.errors import ShapeError
from headscope.nn.computed import Computed
from headscope.nn.movable import Movable
from headscope.nn.placement import columns
from headscope.nn.untouched import untouched
from headscope.shapes import shape


class Positions(Movable):
    """A vector for each position, added to the token's; a learned table, or the sines of the paper.

    Shapes:
        first, for all or `(b,)`, and a count n, or positions `(n,)` or `(b, n)` → `(n, m)` or `(b, n, m)`.

    Raises:
        ShapeError: positions past the table.
    """

    table: Tensor

    def vectors(self, device: torch.device) -> Float[Tensor, "n m"]:
        """The whole table."""
        return self.table.to(device)

    def forward(
        self,
        first: int | Int[Tensor, " b"],
        n: int,
        *,
        at: Shaped[Tensor, "*at"] | None = None,
        like: Tensor | None = None,
    ) -> Float[Tensor, "*b n m"]:
        """The vectors of `n` positions from `first` on, or of those in `at`; on the device of `like`."""
        table = self.vectors(self.table.device if like is None else like.device)
        if at is None and isinstance(first, int):
            return table[first : first + n]
        where = type(self).__name__
        return table[columns(where, first, at, None, n, len(table)).to(table.device)]

    def check(self, last: int) -> None:
        """Raise `ShapeError` when the positions up to `last`, exclusive, are not all in the table."""
        if last > len(self.table):
            raise ShapeError(
                f"{type(self).__name__}: position {last - 1} is past the table of {len(self.table)} positions; "
                "make it with a larger max_positions, or give a shorter sequence."
            )


class LearnedPositions(Positions):
    """A learned vector for each position.

    Example:
        >>> LearnedPositions(100, 6)(3, 2).shape
        torch.Size([2, 6])
    """

    def __init__(
        self,
        max_positions: int,
        embed_dim: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(max_positions, embed_dim, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """New random vectors."""
        nn.init.normal_(self.table, std=0.02)


class SinusoidalPositions(Computed, Positions):
    """`sin(p / 10000^(2i/m))` and `cos` of the same, in turns.

    Source: Vaswani et al. 2017, §3.5.

    Example:
        >>> SinusoidalPositions(100, 4)(0, 1)
        tensor([[0., 1., 0., 1.]])
    """

    def __init__(
        self,
        max_positions: int,
        embed_dim: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if embed_dim % 2:
            raise ShapeError(
                f"SinusoidalPositions: embed_dim={embed_dim}; sines and cosines come in pairs: give an even one."
            )
        self.max_positions, self.embed_dim = max_positions, embed_dim
        self.build(device, dtype)

    def kept_in(self, dtype: torch.dtype) -> torch.dtype:
        """As the model: the vectors are added to its own."""
        return dtype

    def tables(self) -> Mapping[str, Tensor]:
        """The sines and cosines, `(max_positions, m)`."""
        steps = torch.arange(0, self.embed_dim, 2, dtype=torch.float64, device="cpu")
        frequencies = torch.exp(steps * (-math.log(1e4) / self.embed_dim))
        angles = torch.outer(torch.arange(self.max_positions, dtype=torch.float64, device="cpu"), frequencies)
        return {"table": torch.stack((angles.sin(), angles.cos()), -1).flatten(1)}

    def vectors(self, device: torch.device) -> Float[Tensor, "n m"]:
        """The whole table, computed again where it has no numbers."""
        return self.computed("table", device)


class Embedding(Movable):
    """Token ids to vectors: a learned vector for each token, plus one for its position.

    Args:
        vocabulary: how many tokens there are.
        embed_dim: the width.
        positions: the vectors of the positions; None where attention itself knows them (rotary).
        scale: multiplies the tokens' vectors; the paper has `√embed_dim`.
        dropout: the probability that a number is dropped in training.

    Shapes:
        ids `(b, n)` → `(b, n, m)`.

    Raises:
        ShapeError: ids that are not a batch of integers, or positions past the table.

    Source: Vaswani et al. 2017, §3.4.

    Example:
        >>> Embedding(11, 6, LearnedPositions(100, 6))(torch.tensor([[3, 5, 7]])).shape
        torch.Size([1, 3, 6])
    """

    def __init__(
        self,
        vocabulary: int,
        embed_dim: int,
        positions: Positions | None = None,
        *,
        scale: float = 1.0,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, embed_dim, device=device, dtype=dtype)
        self.positions, self.scale, self.dropout = positions, scale, dropout
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """New random vectors of tokens."""
        # So that scaled vectors have unit size, and a tied output starts with small logits.
        nn.init.normal_(self.tokens.weight, std=self.tokens.embedding_dim**-0.5)

    def forward(
        self,
        ids: Int[Tensor, "b n"],
        first: int | Int[Tensor, " b"] = 0,
        *,
        positions: Shaped[Tensor, "*at"] | None = None,
    ) -> Float[Tensor, "b n m"]:
        """Vectors of tokens whose first one stands at position `first`, or that stand at `positions`."""
        x = self.tokens(ids)
        x = x * self.scale if self.scale != 1.0 else x
        if self.positions is not None:
            x = x + self.positions(first, ids.shape[1], at=positions, like=x)
        return F.dropout(x, self.dropout) if self.dropout and self.training else x

    def check(self, ids: Tensor, seen: int, positions: Tensor | None = None) -> None:
        """Raise `ShapeError` unless the ids are a batch of integers that the tables hold."""
        if ids.ndim != 2 or ids.is_floating_point():
            raise ShapeError(f"Embedding: ids are {shape(ids)} {ids.dtype}; give integers of (batch, positions).")
        if self.positions is None:
            return
        if positions is None:
            self.positions.check(seen + ids.shape[1])
        else:
            columns(type(self.positions).__name__, 0, positions, ids.shape[0], ids.shape[1], len(self.positions.table))


class TiedOutput(nn.Module):
    """Vectors to logits, with the weights of the embedding.

    An embedding that was hooked, replaced or offloaded is asked for the vector of every token.

    Source: Press & Wolf 2017, "Using the Output Embedding to Improve Language Models".

    Example:
        >>> TiedOutput(Embedding(11, 6))(torch.zeros(2, 3, 6)).shape
        torch.Size([2, 3, 11])
    """

    def __init__(self, embedding: Embedding) -> None:
        super().__init__()
        self.tokens, self.vocabulary = embedding.tokens, embedding.tokens.num_embeddings

    def forward(self, x: Float[Tensor, "b n m"]) -> Float[Tensor, "b n vocabulary"]:
        """A logit for each token."""
        if untouched(self.tokens, nn.Embedding):
            return F.linear(x, self.tokens.weight)
        return F.linear(x, self.tokens(torch.arange(self.vocabulary, device=x.device)))
