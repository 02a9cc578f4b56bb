"""Logits to the next tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headscope.errors import ShapeError


class Sampler:
    """Picks the next token of each sequence.

    Args:
        temperature: divides the logits; 0 takes the most likely token.
        top_k: only the so many most likely tokens.
        top_p: only the most likely tokens that together have at least this probability.
        seed: of the random numbers; None: torch's own.

    Raises:
        ShapeError: a temperature below 0, a top_k below 1, a top_p outside of 0 to 1.

    Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", for top_p.

    Example:
        >>> Sampler()(torch.tensor([[0.1, 0.7, 0.2]])).tolist()
        [1]
    """

    def __init__(
        self,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> None:
        if not temperature >= 0:
            raise ShapeError(f"generate: temperature={temperature}; give 0 for the most likely token, or more.")
        if top_k is not None and top_k < 1:
            raise ShapeError(f"generate: top_k={top_k}; give at least 1 token to choose from.")
        if top_p is not None and not 0 < top_p <= 1:
            raise ShapeError(f"generate: top_p={top_p}; give a probability above 0 and up to 1.")
        self.temperature, self.top_k, self.top_p, self.seed = temperature, top_k, top_p, seed
        self._generator: torch.Generator | None = None

    def __call__(self, logits: Float[Tensor, "b vocabulary"]) -> Int[Tensor, " b"]:
        """One token for each row."""
        if self.temperature == 0:
            return logits.argmax(-1)
        if self._generator is None and self.seed is not None:
            self._generator = torch.Generator(logits.device).manual_seed(self.seed)
        weights = self.probabilities(logits)
        return torch.multinomial(weights, 1, generator=self._generator)[:, 0]

    def probabilities(self, logits: Float[Tensor, "b vocabulary"]) -> Float[Tensor, "b vocabulary"]:
        """The distribution that is drawn from, in float32 or better."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        weights = logits.softmax(-1)
        if self.top_p is not None:
            ordered, order = weights.sort(dim=-1, descending=True)
            # A token stays while those before it have not reached top_p: so the first one always does.
            gone = ordered.cumsum(-1) - ordered >= self.top_p
            weights = weights.masked_fill(torch.zeros_like(gone).scatter(-1, order, gone), 0.0)
            weights = weights / weights.sum(-1, keepdim=True)
        return weights
