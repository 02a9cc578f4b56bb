"""The mean of several heads: of a layer, of layers, of texts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from headscope.errors import LookError
from headscope.look.axis import Axis
from headscope.look.head import Head
from headscope.look.sequences import Sequences

# A mean has to exist as a matrix: 256 MiB in float32 at this many weights.
MOST_WEIGHTS = 2**26


class Mean:
    """Matrices of weights that are added up, each sequence from its own beginning."""

    def __init__(self) -> None:
        self.total, self.counts = torch.zeros(0, 0), torch.zeros(0)
        self.axes: tuple[Axis, Axis] | None = None
        self.alike, self.sinks = True, False
        self.same: bool | None = None

    def add(self, head: Head) -> None:
        """Add every sequence of a head.

        Raises:
            LookError: self-attention and cross-attention together, or more weights than fit in memory.
        """
        found = head.sequences
        if self.same is not None and self.same != found.same:
            raise LookError(
                "mean: some of these heads look at their own sequence and some at another one; take the mean of each "
                "kind by itself, with layers=[...]."
            )
        self.same, self.sinks = found.same, self.sinks or head.sinks is not None
        for number in range(int(found.key_numbers.max()) + 1 if len(found.rows) else 0):
            self._add_sequence(head, found, number)

    def _add_sequence(self, head: Head, found: Sequences, number: int) -> None:
        rows, keys = found.rows[found.row_numbers == number], found.keys[found.key_numbers == number]
        if found.own is None:
            places = torch.arange(len(rows))
        else:
            places = found.own[found.row_numbers == number] - int((found.key_numbers < number).sum())
        if not len(rows):
            return
        self._grow(int(places.max()) + 1, len(keys))
        weights = head.weights(rows.tolist(), keys.tolist()).cpu()
        self.total[places[:, None], torch.arange(len(keys))] += weights
        self.counts[places] += 1
        axes = head.queries.select(rows.tolist()), head.keys.select(keys.tolist())
        self.alike = self.alike and self.axes in (None, axes)
        self.axes = axes

    def _grow(self, rows: int, keys: int) -> None:
        rows, keys = max(rows, len(self.counts)), max(keys, self.total.shape[1])
        if rows * keys > MOST_WEIGHTS:
            raise LookError(
                f"mean: {rows} x {keys} weights; a mean is held as a whole, and {MOST_WEIGHTS} fit. Record fewer "
                "queries, or look at the heads one by one."
            )
        more = rows - len(self.counts), keys - self.total.shape[1]
        if any(more):
            self.total = torch.nn.functional.pad(self.total, (0, more[1], 0, more[0]))
            self.counts = torch.nn.functional.pad(self.counts, (0, more[0]))

    def head(self) -> Head:
        """The mean as a head.

        Raises:
            LookError: nothing was added.
        """
        there = self.counts.nonzero()[:, 0]
        if not len(there):
            raise LookError("mean: there are no heads with queries that see something; choose others.")
        P: Tensor = self.total[there] / self.counts[there, None]
        if self.alike and self.axes is not None:
            queries, keys = self.axes
        else:
            keys = Axis.positions(P.shape[1])
            queries = keys.select(there.tolist()) if self.same else Axis.positions(len(there))
        return Head.from_weights(P, queries=queries, keys=keys, sinks=self.sinks)


def mean(heads: Iterable[Head]) -> Head:
    """The mean of some heads' weights, as a head that every look, page and figure takes.

    Positions are counted from the beginning of each sequence, padding is left out, and every packed document counts as
    a sequence. A row of the mean is the mean over the sequences that are long enough to have it. The positions keep
    their labels where all sequences have the same ones.

    Memory: the mean as a whole, float32, and the weights of one head beside it; 2²⁶ weights at most.

    Raises:
        LookError: no heads, self-attention and cross-attention together, or too many weights.

    Example:
        >>> import torch
        >>> one, other = Head.from_weights(torch.eye(2)), Head.from_weights(torch.full((2, 2), 0.5))
        >>> [[round(w, 2) for w in row] for row in mean([one, other]).weights().tolist()]
        [[0.75, 0.25], [0.25, 0.75]]
    """
    found = Mean()
    for head in heads:
        found.add(head)
    return found.head()
