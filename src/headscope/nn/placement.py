"""Where the columns of a sequence stand: one after the other, or at positions that the caller gives."""

from __future__ import annotations

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from headscope.attention.known import known
from headscope.errors import ShapeError
from headscope.shapes import shape

# What indexes a table; torch takes uint8 for a mask, so that one is not among them.
INTEGERS = (torch.int64, torch.int32)


def columns(
    where: str,
    first: int | Int[Tensor, " b"],
    positions: Shaped[Tensor, "*at"] | None,
    b: int | None,
    n: int,
    room: int,
) -> Int[Tensor, "*b n"]:
    """The positions of n columns: those that were given, or `first`, `first + 1`, …, for all or for each item.

    Args:
        where: whose error it is.
        b: the batch; None where it is not known.
        room: how many positions there are.

    Raises:
        ShapeError: positions of another length or kind, below 0, or past the last.
    """
    if positions is None:
        # Columns of padding come before the first position; they are masked, so that any position does for them.
        steps = torch.arange(n, device=first.device if isinstance(first, Tensor) else None)
        return (first[:, None] + steps).clamp(min=0) if isinstance(first, Tensor) else first + steps
    check_positions(where, positions, b, n)
    if known(positions) and positions.numel() and bool(((positions < 0) | (positions >= room)).any()):
        raise ShapeError(
            f"{where}: positions go from {int(positions.min())} to {int(positions.max())} and there are {room} of "
            f"them; give positions from 0 to {room - 1}, or make it with a larger max_positions."
        )
    return positions


def check_positions(where: str, positions: Tensor, b: int | None, n: int) -> None:
    """Raise `ShapeError` unless positions are integers, one for each column, for all items or for each."""
    batch = "batch" if b is None else b
    fits = (
        positions.ndim in (1, 2)
        and positions.shape[-1] == n
        and (positions.ndim == 1 or b is None or positions.shape[0] in (1, b))
    )
    if positions.dtype not in INTEGERS or not fits:
        raise ShapeError(
            f"{where}: positions are {shape(positions)} {positions.dtype} and x has {n} columns; "
            f"give integers of ({n},), the same for all items, or of ({batch}, {n})."
        )
