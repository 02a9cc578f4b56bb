"""What of a recording is kept: which layers, heads and queries, the values, in which dtype, on which device."""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from headscope.attention.masks.runs import Runs
from headscope.calls.call import Call
from headscope.errors import OverBudget
from headscope.recording.chosen_numbers import Choice, Numbers
from headscope.recording.ranks.share import Share

Kinds = Literal["self", "cross", "joint", "encoder", "decoder"]
Names = int | str | slice | Sequence[int | str] | None
Queries = int | slice | Sequence[int] | Literal["last"] | None


@dataclass(frozen=True)
class Selection:
    """What to keep of what was followed; None keeps all. Negative numbers count from the end.

    Whatever is selected is the cut of the full recording: layers and queries whose number depends on how many there
    are in the end are kept as long as they may be chosen, and cut when the block ends.
    """

    layers: Names = None
    kind: Kinds | Sequence[Kinds] | None = None
    heads: Numbers = None
    queries: Queries = None
    values: bool = True
    dtype: torch.dtype | None = None
    device: torch.device | None = None

    def wants_kind(self, name: str, kind: str) -> bool:
        """Whether a call of this kind, in a module with this path, is to be kept."""
        if self.kind is None:
            return True
        kinds = [self.kind] if isinstance(self.kind, str) else list(self.kind)
        side = "encoder" if "encoder" in name.replace("decoder", "") else "decoder"
        return kind in kinds or (side in kinds and kind != "cross")

    @property
    def numbered(self) -> Choice:
        """The layers that were chosen by number."""
        if self.layers is None or isinstance(self.layers, int | slice):
            return Choice("layers", self.layers)
        chosen = [self.layers] if isinstance(self.layers, str) else self.layers
        return Choice("layers", [one for one in chosen if not isinstance(one, str)])

    def may_want(self, number: int, name: str, count: int) -> bool:
        """Whether a layer is to be kept, or may be when `count` layers are known and more may come."""
        return (
            self.layers is None or self._named(name) or bool(self.numbered.possible(range(number, number + 1), count))
        )

    def wants(self, number: int, name: str, count: int) -> bool:
        """Whether a layer is to be kept, when there are `count` in the end. `*` in a path stands for anything."""
        if self.layers is None or self._named(name):
            return True
        # Numbers that do not exist choose nothing: which layers there are is not known before.
        chosen = self.numbered.chosen
        if isinstance(chosen, slice):
            return number in range(count)[chosen]
        listed = [chosen] if isinstance(chosen, int) else chosen or ()
        return any(number == (one if one >= 0 else count + one) for one in listed)

    def _named(self, name: str) -> bool:
        chosen = [self.layers] if isinstance(self.layers, str) else self.layers
        if chosen is None or isinstance(chosen, int | slice):
            return False
        return any(isinstance(one, str) and fnmatch.fnmatchcase(name, one) for one in chosen)

    def cut(
        self, call: Call, share: Share | None = None, before: int = 0
    ) -> tuple[Call, tuple[int, ...], tuple[int, ...] | None]:
        """The kept part of a call, the numbers of its heads, and of its queries (None for all).

        Args:
            share: which of the model's heads the call has, where other processes have the others.
            before: how many queries the layer has had in earlier steps.
        """
        first, here = 0 if share is None else share.first, call.q.shape[1]
        heads = list(range(here))
        if self.heads is not None:
            wanted = Choice("heads", self.heads).final(here if share is None else share.total)
            heads = [head - first for head in wanted if first <= head < first + here]
            call = of_heads(call, heads)
        rows = None
        if self.queries is not None:
            numbers = range(before, before + call.q.shape[2])
            chosen = list(numbers)[-1:] if self.queries == "last" else self._queries.possible(numbers, numbers.stop)
            call = of_queries(call, [number - before for number in chosen])
            rows = tuple(chosen)
        return call, tuple(first + head for head in heads), rows

    def final_rows(self, count: int) -> list[int] | None:
        """The numbers of the queries to keep of a layer that has `count` in the end; None for all that were kept."""
        return None if self.queries is None or self.queries == "last" else self._queries.final(count)

    @property
    def depends_on_the_count(self) -> bool:
        """Whether it is only known in the end which layers are wanted."""
        return self.numbered.depends_on_the_count

    @property
    def _queries(self) -> Choice:
        return Choice("queries", None if self.queries == "last" else self.queries)


def place(to: torch.device | str | Path | None) -> tuple[torch.device | None, Path | None]:
    """The device, or the folder, that was meant."""
    if to is None or isinstance(to, torch.device):
        return to, None
    if isinstance(to, str):
        with contextlib.suppress(RuntimeError):
            return torch.device(to), None
    return None, Path(to)


def amount(budget: int | str | None) -> int | None:
    """A number of bytes, from a number or from a text such as "2GB", "500 MB" or "1.5GiB"."""
    if budget is None or isinstance(budget, int):
        return budget
    found = re.fullmatch(r"\s*([0-9.]+)\s*([kMGT]?)(i?)B?\s*", budget)
    if found is None:
        raise OverBudget(f"record: budget={budget!r}; give a number of bytes, or a text such as '2GB' or '500 MB'.")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kMGT".index(unit or " "))


def of_heads(call: Call, heads: list[int]) -> Call:
    """The call with only some of its query heads, and the keys and values that these read."""
    share = call.q.shape[1] // call.k.shape[1]
    groups = list(dict.fromkeys(head // share for head in heads))
    even = len(heads) // len(groups) if groups else 1
    if [head // share for head in heads] != [group for group in groups for _ in range(even)]:
        groups = [head // share for head in heads]  # an irregular choice: every head brings its own keys

    def pick(x: Tensor | None, which: list[int]) -> Tensor | None:
        return x if x is None or x.shape[1] == 1 else x[:, which]

    k, v = (call.k, call.v) if call.k.shape[1] == 1 else (call.k[:, groups], call.v[:, groups])
    runs = None if call.runs is None else Runs(*(side if side.shape[1] == 1 else side[:, heads] for side in call.runs))
    sinks = None if call.sinks is None else call.sinks[heads]
    line = call.by_offset
    line = line if line is None or len(line) == 1 else line[heads]
    return replace(
        call, q=call.q[:, heads], k=k, v=v, runs=runs, bias=pick(call.bias, heads), sinks=sinks, by_offset=line
    )


def of_queries(call: Call, rows: list[int]) -> Call:
    """The call with only some of its queries; a bias by offset is written out for these."""
    runs = (
        None if call.runs is None else Runs(*(side if side.shape[2] == 1 else side[:, :, rows] for side in call.runs))
    )
    return replace(call, q=call.q[:, :, rows], runs=runs, bias=call.bias_of(rows), by_offset=None)
