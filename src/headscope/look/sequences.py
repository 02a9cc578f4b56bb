"""Which queries and keys of an attention call are content, and which sequence each belongs to.

A batch item may hold padding on either side or in the middle, and several packed documents. What a statistic means by
"the beginning", "the previous position" or "the mean over the queries" is meant of each sequence by itself, as if it
had run alone; padding counts nowhere. This is the one place that says where the sequences are. A statistic runs on
`Sequences.request`: the same call with padding left out and each sequence in one piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from headscope.attention.bias import Bias, DenseBias, OffsetBias
from headscope.attention.masks.mask import Intervals
from headscope.attention.masks.runs import Runs, trim
from headscope.attention.request import Request
from headscope.look.axis import Axis


@dataclass(frozen=True, eq=False)
class Sequences:
    """The sequences of one batch item, one after the other, without padding.

    Attributes:
        rows, keys: the queries and the keys that count, by their positions in the call.
        row_numbers, key_numbers: the number of the sequence that each of them belongs to.
        own: where each of these queries stands among these keys; None unless the queries are keys themselves.
        groups: for each key what its neighbours are counted in: its sequence, and its segment where the axis has any.
        whole: whether nothing is left out and all is one sequence, so that the call itself can be used.
    """

    rows: Int64[Tensor, " n"]
    keys: Int64[Tensor, " m"]
    row_numbers: Int64[Tensor, " n"]
    key_numbers: Int64[Tensor, " m"]
    own: Int64[Tensor, " n"] | None
    groups: Int64[Tensor, " m"]
    whole: bool

    @property
    def same(self) -> bool:
        """Whether the queries are keys themselves: self-attention, with or without a cache."""
        return self.own is not None

    @cached_property
    def first(self) -> Bool[Tensor, " m"]:
        """Which keys begin a sequence."""
        before = torch.nn.functional.pad(self.key_numbers, (1, 0), value=-1)[: len(self.keys)]
        return self.key_numbers != before

    @cached_property
    def lengths(self) -> Int64[Tensor, " n"]:
        """For each query how many keys its sequence has."""
        count = int(self.key_numbers.max()) + 1 if len(self.keys) else 1
        return torch.bincount(self.key_numbers, minlength=count)[self.row_numbers]

    def request(self, request: Request) -> Request:
        """The call with only the queries and keys that count, in this order; the call itself where that is all."""
        if self.whole:
            return request
        device = request.q.device
        rows, keys = self.rows.to(device), self.keys.to(device)
        queries, count = request.q.shape[2], request.k.shape[2]
        mask, runs = None, request.runs()
        if runs is not None:
            runs = self._runs(runs, count)
            everything = runs.start.shape[3] == 1 and not runs.start.any() and bool((runs.stop == len(keys)).all())
            mask = None if everything else Intervals(runs, len(keys))
        bias = None if request.bias is None else self._bias(request.bias, queries, count)
        q, k, v = request.q[:, :, rows], request.k[:, :, keys], request.v[:, :, keys]
        return Request(q, k, v, mask, bias, request.scale, request.softcap, request.sinks)

    def _bias(self, bias: Bias, queries: int, count: int) -> Bias:
        """The bias of the rows and keys that are left; one that depends on distances stays as long as these do."""
        if isinstance(bias, OffsetBias) and one_piece(self.rows) and one_piece(self.keys) and len(self.rows):
            before = int(self.rows[0]) + count - queries - int(self.keys[0])
            if before == len(self.keys) - len(self.rows):
                return bias
        return PartOfBias(bias, self.rows, self.keys, queries, count)

    def _runs(self, runs: Runs, count: int) -> Runs:
        """The runs of the rows, counted in the keys that are left. The keys of a run stay side by side."""
        place = torch.zeros(count + 1, dtype=torch.int32, device=runs.start.device)
        place[self.keys.to(place.device)] = torch.arange(len(self.keys), dtype=torch.int32, device=place.device)
        rows = self.rows.to(place.device)
        start, stop = (side if side.shape[2] == 1 else side[:, :, rows] for side in runs)
        empty = stop <= start
        return trim(
            place[start.long()].masked_fill(empty, 0), (place[(stop - 1).clamp(min=0).long()] + 1).masked_fill(empty, 0)
        )

    def over_queries(self, found: Tensor, queries: int) -> Tensor:
        """What was found of the queries that count, at their places among all; 0 at the others. Along the last axis."""
        return spread(found, self.rows, queries)

    def over_keys(self, found: Tensor, keys: int) -> Tensor:
        """What was found of the keys that count, at their places among all; 0 at the others. Along the last axis."""
        return spread(found, self.keys, keys)


class PartOfBias(DenseBias):
    """The bias of some queries and keys of a larger call; a tensor only where a path needs one."""

    def __init__(self, bias: Bias, rows: Tensor, keys: Tensor, queries: int, count: int) -> None:
        self.bias, self.rows, self.keys, self.sizes = bias, rows, keys, (queries, count)

    @cached_property
    def values(self) -> Float[Tensor, "b h q k"]:  # type: ignore[override]
        """All of it."""
        return self.block(slice(0, len(self.rows)), 0, len(self.keys), 0, 0)

    def check(self, b: int, h: int, q: int, k: int) -> None:
        """The larger bias must fit the larger call."""
        self.bias.check(b, h, *self.sizes)

    def block(self, rows: slice, first: int, last: int, q: int, k: int) -> Float[Tensor, "b h rows keys"]:
        """A part of the part: what lies around it in the larger bias, and of that the chosen rows and columns."""
        queries, keys = self.rows[rows], self.keys[first:last]
        if not len(queries) or not len(keys):
            return self.bias.block(slice(0, len(queries)), 0, len(keys), *self.sizes)
        (top, bottom), (left, right) = ((int(x.min()), int(x.max()) + 1) for x in (queries, keys))
        block = self.bias.block(slice(top, bottom), left, right, *self.sizes)
        if block.shape[2] > 1:
            block = block[:, :, (queries - top).to(block.device)]
        return block[..., (keys - left).to(block.device)] if block.shape[3] > 1 else block

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """Those of the larger bias."""
        return self.bias.parameters


def same_positions(queries: Axis, keys: Axis) -> bool:
    """Whether the queries are the last keys: self-attention, with or without a cache."""
    shift = keys.length - queries.length
    return shift >= 0 and queries.kind == keys.kind and queries.labels == keys.labels[shift:]


def sequences_of(runs: Runs | None, queries: Axis, keys: Axis) -> Sequences:
    """The sequences of a batch item, from who sees whom and what its positions are.

    A query counts when it sees something and is no padding; a key counts when such a query sees it. Padding is what the
    axis says is padding (the model's input mask hid it); and in self-attention, where the axis says nothing, a position
    whose own key nobody sees. Two positions belong to one sequence when one sees the other, directly or through more.

    Args:
        runs: those of one batch item, for any heads: what one head sees, the item sees.
    """
    same = same_positions(queries, keys)
    segments = None if keys.parts is None else keys.segment_numbers()
    return found(runs, queries.length, keys.length, same, queries.padding, keys.padding, segments)


def aligned(runs: Runs | None, queries: int, keys: int) -> Sequences:
    """The sequences of self-attention of which only the runs are known; queries and keys are aligned at their ends."""
    return found(runs, queries, keys, queries <= keys, None, None, None)


def found(
    runs: Runs | None,
    queries: int,
    keys: int,
    same: bool,
    hidden_queries: tuple[bool, ...] | None,
    hidden_keys: tuple[bool, ...] | None,
    segments: Tensor | None,
) -> Sequences:
    """`sequences_of`, of sizes and marks."""
    shift = keys - queries
    if runs is None and hidden_queries is None and hidden_keys is None and queries and keys:
        rows, columns = torch.arange(queries), torch.arange(keys)
        one = torch.zeros(keys, dtype=torch.int64)
        own = rows + shift if same else None
        return Sequences(rows, columns, one[:1].expand(queries), one, own, one if segments is None else segments, True)
    if runs is None:
        start = torch.zeros(1, 1, 1, dtype=torch.int64)
        stop = torch.full_like(start, keys)
    else:
        start, stop = (side[0].cpu().long() for side in runs)  # (h|1, q|1, r)
    start, stop = (side.expand(-1, queries, -1) for side in (start, stop))
    hidden = torch.zeros(queries, dtype=torch.bool) if hidden_queries is None else torch.tensor(hidden_queries)
    counted = (stop > start).any(-1).any(0) & ~hidden
    real = seen_by(start, stop, counted, keys)
    if same:
        if hidden_keys is not None:
            real = real | ~torch.tensor(hidden_keys, dtype=torch.bool)
        counted = counted & real[shift:]
        real = seen_by(start, stop, counted, keys)
        real[shift:] |= counted
    rows = counted.nonzero()[:, 0]
    own = rows + shift if same else None
    labels = components(start[:, rows], stop[:, rows], own, keys)
    columns = real.nonzero()[:, 0]
    numbers = torch.unique(labels[columns], return_inverse=True)[1]
    # Sequence by sequence; within each as they stood.
    columns = columns[numbers.argsort(stable=True)]
    number_of = torch.zeros(keys, dtype=torch.int64)
    number_of[columns] = key_numbers = numbers.sort(stable=True).values
    row_numbers = number_of[first_seen(start[:, rows], stop[:, rows])]
    order = row_numbers.argsort(stable=True)
    rows, row_numbers = rows[order], row_numbers[order]
    if same:
        place = torch.zeros(keys, dtype=torch.int64)
        place[columns] = torch.arange(len(columns))
        own = place[rows + shift]
    groups = key_numbers if segments is None else key_numbers * (int(segments.max()) + 1) + segments[columns]
    whole = len(rows) == queries and len(columns) == keys and not key_numbers.any()
    return Sequences(rows, columns, row_numbers, key_numbers, own, groups, whole)


def seen_by(start: Tensor, stop: Tensor, counted: Tensor, keys: int) -> Bool[Tensor, " k"]:
    """Which keys are in a run of a query that counts."""
    return between(start[:, counted], stop[:, counted], keys)


def between(start: Tensor, stop: Tensor, count: int) -> Bool[Tensor, " count"]:
    """Which of the numbers `0 … count - 1` lie in one of the half-open intervals."""
    filled = stop > start
    steps = torch.zeros(count + 1, dtype=torch.int64)
    ones = torch.ones(int(filled.sum()), dtype=torch.int64)
    steps.index_add_(0, start[filled], ones).index_add_(0, stop[filled], -ones)
    return steps.cumsum(0)[:count] > 0


def first_seen(start: Tensor, stop: Tensor) -> Int64[Tensor, " n"]:
    """One key that each query sees."""
    last = torch.iinfo(torch.int64).max
    return start.masked_fill(stop <= start, last).amin(-1).amin(0)


def components(start: Tensor, stop: Tensor, own: Tensor | None, keys: int) -> Int64[Tensor, " k"]:
    """A number for each key, the same for all keys that are connected by queries that see them.

    Keys of one run are connected, so the numbers are first those of stretches of overlapping runs; a query of several
    runs, and its own key, then connect stretches.
    """
    if not keys:
        return torch.zeros(0, dtype=torch.int64)
    joined = between(start, stop - 1, keys)  # key j and key j + 1 lie in one run
    stretch = torch.nn.functional.pad((~joined[:-1]).cumsum(0), (1, 0))
    labels = torch.arange(int(stretch[-1]) + 1)
    if len(labels) == 1 or not start.shape[1]:
        return labels[stretch]
    one = stretch[first_seen(start, stop)]
    filled = stop > start
    others = [one[None, :, None].expand_as(start)[filled], stretch[start[filled]]]
    if own is not None:
        others = [torch.cat([others[0], one]), torch.cat([others[1], stretch[own]])]
    a, b = torch.unique(torch.stack(others), dim=1)
    while True:
        # Every stretch takes the smallest number among those that it is connected with, and that one's number.
        least = torch.minimum(labels[a], labels[b])
        new = labels.scatter_reduce(0, torch.cat([a, b]), torch.cat([least, least]), "amin")
        new = new[new]
        if torch.equal(new, labels):
            return labels[stretch]
        labels = new


def one_piece(places: Tensor) -> bool:
    """Whether positions stand side by side, in order."""
    return len(places) < 2 or bool((places.diff() == 1).all())


def spread(found: Tensor, places: Tensor, count: int) -> Tensor:
    """Numbers at their places among `count`, along the last axis; 0 elsewhere."""
    whole = found.new_zeros(*found.shape[:-1], count)
    whole[..., places.to(found.device)] = found
    return whole
