"""A bias by distance that a model writes out, queries x keys, recognised: one number for each offset is kept of it."""

from __future__ import annotations

import math
import weakref

import torch
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention.bias import Line
from headscope.attention.masks.runs import Runs
from headscope.calls.call import Call

# Queries of a bias that are compared at once.
ROWS = 256


class Lines:
    """Reads biases, each one once: the layers of a model share theirs."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], Tensor | None]] = {}

    def shorten(self, call: Call) -> Call:
        """The call with `by_offset` in the place of a bias that only depends on the distance."""
        bias = call.bias
        if bias is None or call.by_offset is not None or min(bias.shape[2:]) < 2 or not bias.numel():
            return call
        known = self._known.get(id(bias))
        if known is None or known[0]() is not bias:
            key = id(bias)
            known = weakref.ref(bias, lambda _: self._known.pop(key, None)), line_of(bias, call.runs)
            self._known[key] = known
        if known[1] is not None:
            call.bias, call.by_offset = None, known[1]
        return call


def line_of(bias: Tensor, runs: Runs | None) -> Tensor | None:
    """The bias by offset, `(h, q + k - 1)`; None where the bias is another one at some pair that may be seen.

    Offsets that no query may see are 0.
    """
    queries, keys = bias.shape[2:]
    line = candidates(bias, runs)
    for first in range(0, queries, ROWS):
        rows = slice(first, min(first + ROWS, queries))
        wanted = Line(line, keys).block(rows, 0, keys, queries, keys)
        same = bias[:, :, rows] == wanted
        if runs is not None:
            same = same | ~runs.block(rows, 0, keys)
        if not bool(same.all()):
            return None
    return line


def candidates(bias: Tensor, runs: Runs | None) -> Tensor:
    """For each offset the largest number at a pair that may be seen; 0 where there is none."""
    h, queries, keys = bias.shape[1:]
    line = bias.new_full((h, queries + keys - 1), -math.inf)
    for first in range(0, queries, ROWS):
        count = min(first + ROWS, queries) - first
        rows = slice(first, first + count)
        part = bias[:, :, rows]
        if runs is not None:
            part = torch.where(runs.block(rows, 0, keys), part, -math.inf)
        # Shift every row by one more than the row below it: then each distance is a column.
        skewed = pad(part.amax(0).flip(1), (0, count), value=-math.inf).flatten(1)[:, : count * (keys + count - 1)]
        found = skewed.view(-1, count, keys + count - 1).amax(1)
        start = queries - first - count
        place = line[:, start : start + keys + count - 1]
        torch.maximum(place, found, out=place)
    return line.masked_fill(line == -math.inf, 0.0)
