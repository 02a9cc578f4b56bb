"""Weights as whole numbers of 8 or 16 bits: `top · (c / (C - 2))²`, with two codes for what is no number.

The square keeps small weights apart: the error of a weight is about `√(weight · top) / (C - 2)`, at 16 bits 1/65 533.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8, UInt16
from torch import Tensor

DTYPES = {8: torch.uint8, 16: torch.uint16}


class Codes(NamedTuple):
    """Coded numbers and the number that the largest code stands for."""

    top: float
    codes: UInt8[Tensor, "rows columns"] | UInt16[Tensor, "rows columns"]


def encode(
    values: Float[Tensor, "rows columns"],
    seen: Bool[Tensor, "rows columns"],
    known: Bool[Tensor, "rows columns"] | None = None,
    *,
    bits: int,
) -> Codes:
    """Code numbers of 0 and more.

    Args:
        seen: false where the mask hides a cell: the last code but one.
        known: false where nothing is known yet: the last code; known everywhere unless given.
    """
    last = 2**bits - 1
    shown = seen if known is None else seen & known
    held = torch.where(shown, values, 0.0).float()
    top = float(held.max()) if held.numel() else 0.0
    codes = (held / top).sqrt_().mul_(last - 2).round_() if top > 0 else torch.zeros_like(held)
    codes = codes.masked_fill_(~seen, hidden(bits))
    if known is not None:
        codes = codes.masked_fill_(~known, last)
    return Codes(top, codes.to(torch.int32).to(DTYPES[bits]))


def decode(coded: Codes, *, bits: int) -> Float[Tensor, "rows columns"]:
    """The numbers: 0 where the mask hides a cell, NaN where nothing is known."""
    last = 2**bits - 1
    codes = coded.codes.to(torch.int32)
    values: Tensor = (codes.float() / (last - 2)).square_().mul_(coded.top)
    values[codes == hidden(bits)] = 0.0
    values[codes == last] = torch.nan
    return values


def is_seen(coded: Codes, *, bits: int) -> Bool[Tensor, "rows columns"]:
    """Where the mask hides nothing."""
    return torch.ne(coded.codes.to(torch.int32), hidden(bits))


def hidden(bits: int) -> int:
    """The code of what the mask hides: the last but one."""
    return (1 << bits) - 2
