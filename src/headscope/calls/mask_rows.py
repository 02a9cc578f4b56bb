"""Mask tensors of calls, read in blocks of rows: nothing as large as the mask is made of it, unless it has to be kept.

What a model writes out, queries x keys, is mostly who may see whom and one number for each distance (ALiBi, T5): that
is found before anything is copied.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from headscope.attention.bias import Line
from headscope.attention.known import known
from headscope.attention.masks import tensors
from headscope.attention.masks.runs import Runs, concatenate
from headscope.attention.masks.snapshot import Snapshot
from headscope.calls.call import both
from headscope.calls.lines import ByRows, by_rows, line_of, same


class Meaning(NamedTuple):
    """A mask tensor, read.

    Shapes:
        runs `(b|1, h|1, q|1, r)`, bias `(b|1, h|1, q|1, k)`, by_offset `(h|1, q + k - 1)`; None where everything may be
        seen, or nothing is added. There is a bias or a by_offset, not both.
    """

    runs: Runs | None = None
    bias: Tensor | None = None
    by_offset: Tensor | None = None


class Reader:
    """Reads masks and biases, each one once: the layers of a model share theirs."""

    def __init__(self) -> None:
        self._masks: dict[int, tuple[weakref.ref[Tensor], Snapshot, Meaning]] = {}
        self._biases: dict[int, tuple[weakref.ref[Tensor], Snapshot, list[Meaning]]] = {}

    def __call__(self, mask: Tensor) -> Meaning:
        """The meaning of a mask of `scaled_dot_product_attention`, with up to four axes: see `tensors.split`."""
        four = mask.detach()[(None,) * (4 - mask.ndim)]
        if not known(mask):
            return Meaning(*tensors.read(four))
        return tensors.once(self._masks, mask, lambda: of_rows(narrow(four)))

    def bias(self, x: Tensor, runs: Runs | None) -> Meaning:
        """What is added where these runs allow it, as it is now and outside of the graph; it may be written to later.

        Shapes:
            x `(b|1, h|1, q|1, k|1)`.
        """
        x_now = x.detach()
        if not known(x):
            return Meaning(runs, x_now)
        earlier = tensors.once(self._biases, x, list)
        for one in earlier:
            if same(one.runs, runs):
                return one
        line = line_of(by_rows(x_now), runs)
        copy = next((one.bias for one in earlier if one.bias is not None), None)
        if line is None and copy is None:
            copy = x_now.clone()
        earlier.append(Meaning(runs, copy) if line is None else Meaning(runs, None, line))
        return earlier[-1]


def narrow(mask: Tensor) -> ByRows:
    """A mask with four axes; those that were expanded have size 1 again."""
    for axis in range(3):
        if mask.stride(axis) == 0 and mask.shape[axis] > 1:
            mask = mask.narrow(axis, 0, 1)
    return by_rows(mask)


def of_rows(mask: ByRows) -> Meaning:
    """The meaning of a mask, from blocks of its rows."""
    parts, counts, hides, adds = [], [], False, False
    for _, block in mask.blocks():
        allowed, added = allowed_and_added(block)
        hidden = not bool(allowed.all())
        parts.append(tensors.runs_of(allowed if hidden else allowed[:1, :1, :1]))
        counts.append(allowed.shape[2])
        hides, adds = hides or hidden, adds or added is not None
    runs = concatenate(parts, counts) if hides else None
    if not adds:
        return Meaning(runs)
    line = line_of(mask, runs)
    return Meaning(runs, copied(mask)) if line is None else Meaning(runs, None, line)


def allowed_and_added(mask: Tensor) -> tuple[Tensor, Tensor | None]:
    """Who may attend, and what is added there; None for nothing."""
    return (mask, None) if mask.dtype == torch.bool else tensors.split(mask)


def copied(mask: ByRows) -> Tensor | None:
    """What a mask adds, 0 where it hides; None where it has no rows."""
    own: Tensor | None = None
    for rows, block in mask.blocks():
        own = block.new_empty(mask.shape) if own is None else own
        added = tensors.split(block)[1]
        own[:, :, rows] = 0.0 if added is None else added
    return own


def together(first: Meaning, second: Meaning, queries: int, keys: int) -> Meaning:
    """Two masks of one call: what both allow, and the sum of what they add."""
    runs = both(first.runs, second.runs)
    added = [one for one in (first, second) if one.bias is not None or one.by_offset is not None]
    if len(added) < 2:
        return added[0]._replace(runs=runs) if added else Meaning(runs)
    one, two = (written_out(meaning, queries, keys) for meaning in added)
    return Meaning(runs, one + two)


def written_out(meaning: Meaning, queries: int, keys: int) -> Tensor:
    """What a mask adds, with four axes."""
    if meaning.by_offset is not None:
        return Line(meaning.by_offset, keys).block(slice(0, queries), 0, keys, queries, keys)
    assert meaning.bias is not None
    return meaning.bias
