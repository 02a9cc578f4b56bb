"""The steps of a generation: calls of one module whose keys continue those of the call before become one layer.

Queries are appended, every key is kept once, and each query's runs say which keys it saw when it was asked: also where
a static cache holds room for more, where a sliding cache has dropped the first keys, and where a beam search went on
with another beam (then a batch item's history is that of the beam it came from).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from headscope.attention.masks.runs import Runs
from headscope.recording.calls import Call
from headscope.recording.kept_copies import Keeper
from headscope.recording.layer import Layer, plain

# A key is recognised by the first numbers of its first head.
PRINT = 8


@dataclass
class Step:
    """What one later call adds; `first` is the position of the call's first key among all keys."""

    q: Tensor
    k: Tensor | None
    v: Tensor | None
    runs: Runs | None
    bias: Tensor | None
    first: int
    seen: int
    parents: Tensor | None
    rows: tuple[int, ...] | None


@dataclass
class Steps:
    """One layer while it may still grow."""

    layer: Layer
    prints: Tensor
    asked: int
    seen: int = 0
    steps: list[Step] = field(default_factory=list)

    @property
    def keys(self) -> int:
        """How many keys there are so far."""
        return self.prints.shape[1]


def prints_of(k: Tensor) -> Tensor:
    """What keys are recognised by: `(b, k, n)`."""
    return k[:, 0, :, :PRINT].detach().clone()


def room(call: Call) -> int:
    """How many of a call's keys anybody may see: a static cache holds more."""
    if call.runs is None or call.k.shape[2] <= call.q.shape[2] or not call.runs.stop.numel():
        return call.k.shape[2]
    return max(int(call.runs.stop.max()), 1)


def continues(steps: Steps, call: Call, cross: bool) -> tuple[int, int, Tensor | None] | None:
    """Where a call goes on: the position of its first key, how many of its keys count, and which item each item was.

    None when the call has nothing to do with the ones before.
    """
    seen, asked, known = room(call), call.q.shape[2], steps.keys
    if len(call.k) != len(steps.prints):
        return None
    new = 0 if cross else asked
    found = prints_of(call.k[:, :, :seen])
    for first in dict.fromkeys((0, known + new - seen)):
        old = seen - new
        # The first `old` keys of the call are known ones, and the last one that is known is among them.
        if first < 0 or old < 1 or first + old != known:
            continue
        before, now = steps.prints[:, first:], found[:, :old]
        if torch.equal(before, now):
            return first, seen, None
        parents = [next((j for j, one in enumerate(before) if torch.equal(one, item)), -1) for item in now]
        if min(parents) >= 0:
            return first, seen, torch.tensor(parents, device=call.k.device)
    return None


def append(
    steps: Steps,
    call: Call,
    kept: Call,
    rows: tuple[int, ...] | None,
    keeper: Keeper,
    at: tuple[int, int, Tensor | None],
    cross: bool,
) -> None:
    """Add a call to the layer it continues; `kept` is the part of it that was selected."""
    first, seen, parents = at
    new = 0 if cross else call.q.shape[2]
    if parents is not None:
        steps.prints = steps.prints[parents]
    k = v = None
    if new:
        k = keeper.copy(kept.k[:, :, seen - new : seen])
        v = None if steps.layer.v is None else keeper.copy(kept.v[:, :, seen - new : seen])
        steps.prints = torch.cat([steps.prints, prints_of(call.k[:, :, seen - new : seen])], 1)
    placed = None if rows is None else tuple(row + steps.asked for row in rows)
    bias = None if kept.bias is None else keeper.convert(kept.bias[..., :seen])
    runs = None if kept.runs is None else kept.runs.to(keeper.device)
    steps.steps.append(Step(keeper.copy(kept.q), k, v, runs, bias, first, seen, parents, placed))
    steps.asked += call.q.shape[2]


def joined(steps: Steps) -> Layer:
    """The layer with everything that later calls added."""
    layer, parts = steps.layer, steps.steps
    if not parts:
        return layer
    items = len(layer.q)
    queries, keys, values = [], [], []
    which: Tensor | None = None
    runs: list[Runs] = []
    seen = steps.seen
    bias = None if layer.bias is None else layer.bias[..., :seen]
    v = None if layer.v is None else layer.v[:, :, :seen]
    first = Step(layer.q, layer.k[:, :, :seen], v, layer.runs, bias, 0, seen, None, layer.rows)
    # From the last step back: each item's history is that of the item it came from.
    for step in reversed([first, *parts]):
        queries.append(of_items(step.q, which))
        keys.append(None if step.k is None else of_items(step.k, which))
        values.append(None if step.v is None else of_items(step.v, which))
        runs.append(explicit(step, which))
        if step.parents is not None:
            which = step.parents if which is None else step.parents[which]
    total = sum(k.shape[2] for k in keys if k is not None)
    new = Layer(
        layer.name,
        layer.kind,
        torch.cat(queries[::-1], 2),
        torch.cat([k for k in keys[::-1] if k is not None], 2),
        None if layer.v is None else torch.cat([v for v in values[::-1] if v is not None], 2),
        stacked(runs[::-1]),
        layer.scale,
        layer.softcap,
        wide_bias([first, *parts], total, items),
        layer.sinks,
        None,
        [],
        [plain(total)] * items,
        layer.number,
        layer.head_numbers,
        None if layer.rows is None else sum((step.rows or () for step in parts), layer.rows),
        layer.source,
    )
    return new


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


def stacked(runs: list[Runs]) -> Runs:
    """Runs of successive queries, one below the other."""
    sizes = [max(run.start.shape[axis] for run in runs) for axis in (0, 1, 3)]

    def side(x: Tensor) -> Tensor:
        x = torch.nn.functional.pad(x, (0, sizes[2] - x.shape[3]))
        return x.expand(sizes[0], sizes[1], -1, -1)

    return Runs(torch.cat([side(run.start) for run in runs], 2), torch.cat([side(run.stop) for run in runs], 2))


def wide_bias(steps: list[Step], total: int, items: int) -> Tensor | None:
    """The biases of successive queries, each at the place of its keys."""
    given = [step.bias for step in steps if step.bias is not None]
    if not given:
        return None
    heads = max(bias.shape[1] for bias in given)
    batch = max(bias.shape[0] for bias in given)
    rows = []
    for step in steps:
        row = given[0].new_zeros(batch, heads, step.q.shape[2], total)
        if step.bias is not None:
            row[..., step.first : step.first + step.seen] = step.bias
        rows.append(row)
    return torch.cat(rows, 2)
