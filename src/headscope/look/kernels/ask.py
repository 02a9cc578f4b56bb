"""What is asked of a pass over all weights of a call, and what it found."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Ask:
    """What is wanted of a pass.

    Attributes:
        top: how many of the largest weights of every query.
        cells: queries and keys in one cell of a map; both maps have the same cells.
        leave_out: keys that `peak` does not count.
        mix: numbers of the queries, `(c, q)`; what is found is their product with the weights.
    """

    entropy: bool = False
    concentration: bool = False
    received: bool = False
    top: int = 0
    mean_map: bool = False
    max_map: bool = False
    cells: tuple[int, int] = (1, 1)
    peak: bool = False
    leave_out: Tensor | None = None
    mix: Tensor | None = None

    @property
    def maps(self) -> bool:
        """Whether a map is wanted."""
        return self.mean_map or self.max_map


@dataclass
class Seen:
    """What a pass found, in float32 (float64 for float64); None where it was not asked for.

    Shapes:
        lse, entropy, concentration, peak `(b, h, q)`; received `(b, h, k)`; top weights and keys `(b, h, q, n)`;
        maps `(b, h, rows, columns)`; mixed `(b, h, c, k)`.
    """

    lse: Float[Tensor, "b h q"]
    entropy: Float[Tensor, "b h q"] | None = None
    concentration: Float[Tensor, "b h q"] | None = None
    peak: Float[Tensor, "b h q"] | None = None
    received: Float[Tensor, "b h k"] | None = None
    top_weights: Float[Tensor, "b h q n"] | None = None
    top_keys: Int64[Tensor, "b h q n"] | None = None
    mean_map: Float[Tensor, "b h rows columns"] | None = None
    max_map: Float[Tensor, "b h rows columns"] | None = None
    mixed: Float[Tensor, "b h c k"] | None = None
