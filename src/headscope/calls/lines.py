"""A bias by distance that a model writes out, queries x keys, recognised: one number for each offset is kept of it."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention.masks.runs import Runs
from headscope.calls.call import Call

# Numbers that are looked at at once; a few tensors of this size are all the memory that it takes.
NUMBERS = 2**22


class ByRows(NamedTuple):
    """A mask or a bias `(b, h, queries, keys)` that is read, or made, some rows at a time; axes may have size 1."""

    shape: tuple[int, ...]
    block: Callable[[slice], Tensor]

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Its rows in blocks of about `NUMBERS` numbers, at least one row each."""
        b, h, rows, columns = self.shape
        count = max(NUMBERS // max(b * h * columns, 1), 1)
        for first in range(0, rows, count):
            some = slice(first, min(first + count, rows))
            yield some, self.block(some)


def by_rows(x: Tensor) -> ByRows:
    """A tensor with four axes, in views of its rows."""
    return ByRows(tuple(x.shape), lambda rows: x[:, :, rows])


class Distances:
    """One number for each distance from a query to a key, collected from blocks of rows.

    Args:
        like: of the dtype and on the device of the bias.

    Attributes:
        found: `(h, queries + keys - 1)`, NaN where no pair that may be seen has come yet.
    """

    def __init__(self, heads: int, queries: int, keys: int, like: Tensor) -> None:
        self.queries, self.keys = queries, keys
        self.found = like.new_full((heads, queries + keys - 1), math.nan)

    def fit(self, rows: slice, bias: Tensor, allowed: Tensor | None) -> bool:
        """Take the bias of some queries; False where two pairs that may be seen have one distance and two numbers.

        Shapes:
            bias `(b|1, h|1, rows, keys)`, allowed `(b|1, h|1, rows|1, keys)`.
        """
        low = self._by_distance(bias, allowed, math.inf)
        high = -self._by_distance(-bias, allowed, math.inf)
        start, count = self.queries - rows.stop, low.shape[1]
        known = self.found[:, start : start + count]
        seen = (low != math.inf) | (high != -math.inf)
        if not bool((((low == high) & ((known == low) | known.isnan())) | ~seen).all()):
            return False
        known.copy_(torch.where(seen, low, known))
        return True

    def line(self) -> Tensor:
        """The bias by offset; 0 at distances that no query may see."""
        return self.found.masked_fill(self.found.isnan(), 0.0)

    def _by_distance(self, bias: Tensor, allowed: Tensor | None, nothing: float) -> Tensor:
        """The smallest number of every distance in a block of rows, `(h, rows + keys - 1)`."""
        count = bias.shape[2]
        if allowed is not None:
            if bias.shape[1] == 1:
                # A bias that heads share has one number for a pair that any of them may see.
                allowed = allowed.any(1, keepdim=True)
            bias = torch.where(allowed, bias, nothing)
        # Shift every row by one more than the row below it: then each distance is a column.
        skewed = pad(bias.amin(0).flip(1), (0, count), value=nothing).flatten(1)
        return skewed[:, : count * (self.keys + count - 1)].view(-1, count, self.keys + count - 1).amin(1)


class Lines:
    """Reads biases, each one once for the same runs: the layers of a model share theirs."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], Runs | None, Tensor | None]] = {}

    def shorten(self, call: Call) -> Call:
        """The call with `by_offset` in the place of a bias that only depends on the distance."""
        bias = call.bias
        if bias is None or call.by_offset is not None:
            return call
        known = self._known.get(id(bias))
        if known is None or known[0]() is not bias or not same(known[1], call.runs):
            key = id(bias)
            known = (
                weakref.ref(bias, lambda _: self._known.pop(key, None)),
                call.runs,
                line_of(by_rows(bias), call.runs),
            )
            self._known[key] = known
        if known[2] is not None:
            call.bias, call.by_offset = None, known[2]
        return call


def line_of(bias: ByRows, runs: Runs | None) -> Tensor | None:
    """The bias by offset, `(h, q + k - 1)`; None where two pairs that may be seen have one distance and two numbers.

    Also for a bias that queries or keys share, which has nothing to shorten. Offsets that no query may see are 0.
    """
    _, heads, queries, keys = bias.shape
    if min(queries, keys) < 2 or 0 in bias.shape:
        return None
    distances: Distances | None = None
    for rows, block in bias.blocks():
        distances = distances or Distances(heads, queries, keys, block)
        if not distances.fit(rows, block, None if runs is None else runs.block(rows, 0, keys)):
            return None
    return None if distances is None else distances.line()


def same(a: Runs | None, b: Runs | None) -> bool:
    """Whether two runs are equal."""
    if a is None or b is None:
        return a is b
    return a is b or all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(a, b, strict=True))
