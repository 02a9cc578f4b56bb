"""What is asked of a pass over all weights of a call, and what it found."""

from __future__ import annotations

from dataclasses import dataclass, fields

from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Candidates:
    """The keys that count when the largest weight of every query is looked for.

    Attributes:
        keys: those that count for any query.
        start, stop: of them the keys `start … stop - 1` do not count for a query.
    """

    keys: Bool[Tensor, " k"]
    start: Int64[Tensor, " q"]
    stop: Int64[Tensor, " q"]


@dataclass(frozen=True)
class Ask:
    """What is wanted of a pass.

    Attributes:
        top: how many of the largest weights of every query.
        cells: queries and keys in one cell of a map; both maps have the same cells.
        leave_out: keys that `peak` does not count.
        mix: numbers of the queries, `(c, q)`; what is found is their product with the weights.
        candidates: among which keys `best` is; not together with a map.
        picture: rows and columns of a picture, as `picture_cells` has them; not together with a map.
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
    candidates: Candidates | None = None
    picture: tuple[int, int] | None = None

    @property
    def maps(self) -> bool:
        """Whether a map is wanted."""
        return self.mean_map or self.max_map


@dataclass
class Seen:
    """What a pass found, in float32 (float64 for float64); None where it was not asked for.

    Shapes:
        lse, entropy, concentration, peak, best `(b, h, q)`; received `(b, h, k)`; top weights and keys
        `(b, h, q, n)`; maps and pictures `(b, h, rows, columns)`; mixed `(b, h, c, k)`.

    Attributes:
        best: the largest weight of each query on a candidate; 0 where it has none.
        picture: the largest weight of each cell; 0 where none is seen.
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
    best: Float[Tensor, "b h q"] | None = None
    picture: Float[Tensor, "b h rows columns"] | None = None

    def of_head(self, head: int) -> Seen:
        """What was found of one head."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return Seen(**{name: x[:, head : head + 1] for name, x in found.items() if isinstance(x, Tensor)})
