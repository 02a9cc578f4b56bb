"""The steps of a generation: calls of one module whose keys continue those of the call before become one layer.

Queries are appended, every key is kept once, and each query's runs say which keys it saw at its step: also where
a static cache holds room for more, where a sliding cache has dropped the first keys, and where a beam search went on
with another beam (then a batch item's history is that of the beam it came from).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from headscope.attention.bias import Line
from headscope.attention.masks.runs import Runs, concatenate
from headscope.calls.call import Call
from headscope.recording.kept_copies import Keeper
from headscope.recording.layer import Layer, plain

# A key's fingerprint: the first numbers of its first head.
FINGERPRINT = 8


@dataclass
class Step:
    """What one call adds; `first` is the position of the call's first key among all keys.

    Attributes:
        q, k, v: of the selected heads and queries; k and v only of the keys that are new.
        asked: how many queries the call had.
        before: how many positions stand before its first query.
        seen: how many of its keys count: a static cache holds more.
        parents: which item each item was in the step before; None where they stayed.
        rows: the numbers of its queries; None for all.
    """

    q: Tensor
    k: Tensor | None
    v: Tensor | None
    runs: Runs | None
    bias: Tensor | None
    by_offset: Tensor | None
    first: int
    asked: int
    before: int
    seen: int
    parents: Tensor | None
    rows: tuple[int, ...] | None


@dataclass
class Steps:
    """One layer while it may still grow. What was not selected is followed, too, but nothing of it is kept.

    Attributes:
        layer: the first call, as far as it was selected; None where it was not.
        fingerprints: of every key so far, `(b, k, n)`.
        offset: how many positions stand before the first recorded query.
        asked: how many positions there are up to the last query.
        seen: how many keys of the first call count.
        uncounted: its largest stop, where a GPU has yet to compute it: `count` waits for it when a later call asks.
    """

    layer: Layer | None
    fingerprints: Tensor
    asked: int
    seen: int = 0
    offset: int = 0
    first_queries: int = 0
    uncounted: Tensor | None = None
    steps: list[Step] = field(default_factory=list)

    def count(self) -> None:
        """Know how many keys of the first call count."""
        if self.uncounted is not None:
            self.seen, self.uncounted = max(int(self.uncounted), 1), None
            self.fingerprints = self.fingerprints[:, : self.seen]

    @property
    def keys(self) -> int:
        """How many keys there are so far."""
        return self.fingerprints.shape[1]

    @property
    def queries(self) -> int:
        """How many queries there are so far."""
        return self.asked - self.offset

    def follow(self, call: Call, at: Place, cross: bool) -> None:
        """Go on with a call that continues the ones before."""
        new = 0 if cross else call.q.shape[2]
        if at.parents is not None:
            self.fingerprints = self.fingerprints[at.parents]
        if new:
            added = fingerprints_of(call.k[:, :, at.seen - new : at.seen])
            self.fingerprints = torch.cat([self.fingerprints, added], 1)
        self.asked += call.q.shape[2]


class Place(NamedTuple):
    """Where a call goes on: the position of its first key, how many of its keys count, which item each item was."""

    first: int
    seen: int
    parents: Tensor | None


def fingerprints_of(k: Tensor) -> Tensor:
    """What keys are recognised by: `(b, k, n)`."""
    first = k[:, 0] if k.shape[1] else k.flatten(1, 2)
    return first[:, :, :FINGERPRINT].detach().clone()


def capacity(call: Call) -> int:
    """How many of a call's keys any query may see: a static cache holds more."""
    stop = largest_stop(call)
    return call.k.shape[2] if stop is None else max(int(stop), 1)


def largest_stop(call: Call) -> Tensor | None:
    """The end of the last run of a call, on its device; None where all its keys count."""
    if call.runs is None or call.k.shape[2] <= call.q.shape[2] or not call.runs.stop.numel():
        return None
    return call.runs.stop.max()


def continues(steps: Steps, call: Call, cross: bool) -> Place | None:
    """Where a call goes on; None when it does not continue the ones before.

    Whether it does decides what is kept of it, so that it is known at once: a GPU is waited for.
    """
    steps.count()
    seen, asked, known = capacity(call), call.q.shape[2], steps.keys
    if len(call.k) != len(steps.fingerprints):
        return None
    new = 0 if cross else asked
    found = fingerprints_of(call.k[:, :, :seen])
    for first in dict.fromkeys((0, known + new - seen)):
        old = seen - new
        # The first `old` keys of the call are known ones, and the last one that is known is among them.
        if first < 0 or old < 1 or first + old != known:
            continue
        before, now = steps.fingerprints[:, first:], found[:, :old]
        if torch.equal(before, now):
            return Place(first, seen, None)
        parents = [next((j for j, one in enumerate(before) if torch.equal(one, item)), -1) for item in now]
        if min(parents) >= 0:
            return Place(first, seen, torch.tensor(parents, device=call.k.device))
    return None


def append(
    steps: Steps, call: Call, kept: Call, rows: tuple[int, ...] | None, keeper: Keeper, at: Place, cross: bool
) -> None:
    """Add a call to the layer it continues; `kept` is the part of it that was selected."""
    assert steps.layer is not None
    asked, seen = call.q.shape[2], at.seen
    new = 0 if cross else asked
    k = v = None
    if new:
        k = keeper.copy(kept.k[:, :, seen - new : seen])
        v = None if steps.layer.v is None else keeper.copy(kept.v[:, :, seen - new : seen])
    bias = None if kept.bias is None else keeper.convert(kept.bias[..., :seen])
    by_offset = None if kept.by_offset is None else keeper.convert(kept.by_offset)
    runs = None if kept.runs is None else kept.runs.to(keeper.device)
    q = keeper.copy(kept.q)
    step = Step(q, k, v, runs, bias, by_offset, at.first, asked, steps.asked, seen, at.parents, rows)
    steps.steps.append(step)
    steps.follow(call, at, cross)


def joined(steps: Steps) -> Layer:
    """The layer with everything that later calls added."""
    layer, later = steps.layer, steps.steps
    assert layer is not None
    if not later:
        return layer
    items, seen = layer.items, steps.seen
    queries, keys, values = [], [], []
    which: Tensor | None = None
    runs: list[Runs] = []
    first = Step(
        layer.q,
        layer.k[:, :, :seen],
        None if layer.v is None else layer.v[:, :, :seen],
        layer.runs,
        None if layer.bias is None else layer.bias[..., :seen],
        layer.by_offset,
        0,
        steps.first_queries,
        steps.offset,
        seen,
        None,
        layer.rows,
    )
    parts = [first, *later]
    # From the last step back: each item's history is that of the item it came from.
    for step in reversed(parts):
        queries.append(of_items(step.q, which))
        keys.append(None if step.k is None else of_items(step.k, which))
        values.append(None if step.v is None else of_items(step.v, which))
        runs.append(explicit(step, which))
        if step.parents is not None:
            which = step.parents if which is None else step.parents[which]
    total = sum(k.shape[2] for k in keys if k is not None)
    by_offset = one_line(parts, steps.queries, total)
    return layer.changed(
        q=torch.cat(queries[::-1], 2),
        k=torch.cat([k for k in keys[::-1] if k is not None], 2),
        v=None if layer.v is None else torch.cat([v for v in values[::-1] if v is not None], 2),
        runs=concatenate(runs[::-1], [run.start.shape[2] for run in runs[::-1]]),
        bias=wide_bias(parts, total) if by_offset is None else None,
        by_offset=by_offset,
        lse=None,
        output=None,
        queries=[],
        keys=[plain(total)] * items,
        rows=None if layer.rows is None else sum((step.rows or () for step in later), layer.rows),
    )


def of_items(x: Tensor, which: Tensor | None) -> Tensor:
    """The batch items that are wanted; one that stands for all stays."""
    return x if which is None or len(x) == 1 else x[which.to(x.device)]


def explicit(step: Step, which: Tensor | None) -> Runs:
    """The runs of a step, counted in all keys and with a row for each query."""
    count = step.q.shape[2]
    if step.runs is None:
        start = torch.full((1, 1, count, 1), step.first, dtype=torch.int32, device=step.q.device)
        return Runs(start, start + step.seen)
    start, stop = (of_items(side, which).expand(-1, -1, count, -1) for side in step.runs)
    empty = stop <= start
    return Runs((start + step.first).masked_fill(empty, 0), (stop + step.first).masked_fill(empty, 0))


def wide_bias(steps: list[Step], total: int) -> Tensor | None:
    """The biases of successive queries, each at the place of its keys."""
    dense = [step_bias(step) for step in steps]
    present = [bias for bias in dense if bias is not None]
    if not present:
        return None
    batch, heads = (max(bias.shape[axis] for bias in present) for axis in (0, 1))
    rows = []
    for step, bias in zip(steps, dense, strict=True):
        row = present[0].new_zeros(batch, heads, step.q.shape[2], total)
        if bias is not None:
            row[..., step.first : step.first + step.seen] = bias[..., : step.seen]
        rows.append(row)
    return torch.cat(rows, 2)


def step_bias(step: Step) -> Tensor | None:
    """The bias of a step, written out."""
    if step.by_offset is None:
        return step.bias
    keys = step.by_offset.shape[1] - step.asked + 1
    return Line(step.by_offset, keys).block(slice(0, step.asked), 0, keys, step.asked, keys)


def one_line(steps: list[Step], queries: int, keys: int) -> Tensor | None:
    """The bias by offset of all steps together, `(h|1, queries + keys - 1)`; None where they do not agree on one."""
    lines = [step.by_offset for step in steps]
    if any(line is None or step.bias is not None for line, step in zip(lines, steps, strict=True)):
        return None
    first = lines[0]
    assert first is not None
    found = first.new_full((len(first), queries + keys - 1), torch.nan)
    for step, line in zip(steps, lines, strict=True):
        assert line is not None
        # Query i and key j of the step are query i + (before - offset) and key j + first of all.
        here = line[:, : step.asked + step.seen - 1]
        start = step.first - (step.before - steps[0].before) + queries - step.asked
        if start < 0 or start + here.shape[1] > found.shape[1]:
            return None
        place = found[:, start : start + here.shape[1]]
        if bool(((place != here) & ~place.isnan()).any()):
            return None
        place.copy_(here)
    return found.nan_to_num(0.0)
