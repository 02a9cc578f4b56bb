"""What turns queries and keys into weights, beside themselves: mask, bias, scale, softcap and sinks as one value."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from headscope.attention.api import attend, attend_lse
from headscope.attention.bias import Bias
from headscope.attention.masks.mask import Mask
from headscope.attention.request import Request


class Scoring(NamedTuple):
    """The arguments of `hs.attend` that change scores or weights, in its order."""

    mask: Mask | None = None
    bias: Bias | None = None
    scale: float | None = None
    softcap: float | None = None
    sinks: Tensor | None = None

    @classmethod
    def of(cls, request: Request) -> Scoring:
        """The scoring of a call."""
        return cls(request.mask, request.bias, request.scale, request.softcap, request.sinks)

    def request(self, q: Tensor, k: Tensor, v: Tensor | None = None, *, where: str = "look") -> Request:
        """The call of these queries and keys, which a look needs without values; `where` is named in its errors."""
        return Request(q, k, k if v is None else v, *self, where=where)

    def values(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """`attend` with this scoring."""
        return attend(q, k, v, **self._asdict())

    def values_and_lse(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """`attend_lse` with this scoring."""
        return attend_lse(q, k, v, **self._asdict())

    def lse(self, q: Tensor, k: Tensor) -> Tensor:
        """The log of the sum of exponentiated scores of every query."""
        return self.values_and_lse(q, k, k)[1]
