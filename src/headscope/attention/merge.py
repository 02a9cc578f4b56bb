"""Pairs (values, lse) over disjoint sets of keys, merged exactly into the pair over their union (design idea 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.errors import ShapeError
from headscope.shapes import shape

Pair = tuple[Tensor, Tensor]


def merge(
    pairs: Sequence[tuple[Float[Tensor, "b h q e"], Float[Tensor, "b h q"]]],
) -> tuple[Float[Tensor, "b h q e"], Float[Tensor, "b h q"]]:
    """Attention over the union of sets of keys, from attention over each set.

    `lse = log Σ_n exp lse_n` and `values = Σ_n values_n · exp(lse_n - lse)`. Exact, differentiable, in any order. A
    query that may see nothing in any set keeps values of zero and an lse of minus infinity.

    Shapes:
        each pair: values `(b, h, q, e)` and lse `(b, h, q)`; the same sizes for all.

    Raises:
        ShapeError: no pairs, or pairs of different sizes.

    Source: the identity behind Rabe & Staats 2021 and FlashAttention (Dao et al. 2022).

    Example:
        >>> a = torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1)
        >>> b = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1)
        >>> merge([a, b])[0].flatten().tolist()
        [0.5, 0.5]
    """
    if not pairs:
        raise ShapeError("merge: no pairs were given; give at least one (values, lse).")
    for values, lse in pairs:
        if shape(values) != shape(pairs[0][0]) or shape(lse) != shape(values)[:-1]:
            raise ShapeError(
                f"merge: a pair has values {shape(values)} and lse {shape(lse)}, the first has {shape(pairs[0][0])}; "
                "give values (b, h, q, e) and lse (b, h, q), of the same sizes in every pair."
            )
    if len(pairs) == 1:
        return pairs[0]
    parts = torch.stack([lse for _, lse in pairs])
    # Relative to a finite number: -inf - -inf would be NaN, in the values and in the gradients.
    top = parts.detach().amax(0)
    empty = top.isneginf()
    shares = torch.exp(parts - top.masked_fill(empty, 0.0))
    total = shares.sum(0).masked_fill(empty, 1.0)
    lse = (total.log() + top.masked_fill(empty, 0.0)).masked_fill(empty, -math.inf)
    shares = shares / total
    merged = sum(values.to(lse.dtype) * share[..., None] for (values, _), share in zip(pairs, shares, strict=True))
    assert isinstance(merged, Tensor)
    return merged.to(pairs[0][0].dtype), lse
