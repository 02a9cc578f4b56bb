"""The largest weights of queries."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor


class Top(NamedTuple):
    """The largest weights of every query, in falling order; keys that a query may not see have weight 0."""

    weights: Float[Tensor, "*heads q n"]
    keys: Int64[Tensor, "*heads q n"]
