"""What of every attention call is kept: which layers, heads and queries, the values, in which dtype, on which "
"device."""

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
from headscope.errors import LookError, OverBudget
from headscope.recording.calls import Call
from headscope.recording.ranks.share import Share

Kinds = Literal["self", "cross", "encoder", "decoder"]
Numbers = int | slice | Sequence[int] | None
Names = int | str | slice | Sequence[int | str] | None
Queries = int | slice | Sequence[int] | Literal["last"] | None


@dataclass(frozen=True)
class Selection:
    """What to keep; None keeps all. Negative numbers count from the end."""

    layers: Names = None
    kind: Kinds | Sequence[Kinds] | None = None
    heads: Numbers = None
    queries: Queries = None
    values: bool = True
    dtype: torch.dtype | None = None
    device: torch.device | None = None

    def wants_kind(self, name: str, cross: bool) -> bool:
        """Whether a call of this kind, in a module with this path, is to be kept."""
        if self.kind is None:
            return True
        kinds = [self.kind] if isinstance(self.kind, str) else list(self.kind)
        side = "encoder" if "encoder" in name.replace("decoder", "") else "decoder"
        return ("cross" if cross else "self") in kinds or (side in kinds and not cross)

    def wants(self, number: int, name: str) -> bool:
        """Whether the attention module with this number and path is to be kept; a text is a path, `*` stands for "
        "anything."""
        layers = self.layers
        if layers is None:
            return True
        if isinstance(layers, slice):
            return number in range(number + 1)[layers]
        chosen = [layers] if isinstance(layers, int | str) else layers
        return any(fnmatch.fnmatchcase(name, one) if isinstance(one, str) else number == one for one in chosen)

    def cut(self, call: Call, share: Share | None = None) -> tuple[Call, tuple[int, ...], tuple[int, ...] | None]:
        """The kept part of a call, the numbers of its heads, and the positions of its queries (None for all).

        Args:
            share: which of the model's heads the call has, where other processes have the others.
        """
        first, here = 0 if share is None else share.first, call.q.shape[1]
        heads = list(range(here))
        if self.heads is not None:
            wanted = indices("heads", self.heads, here if share is None else share.total)
            heads = [head - first for head in wanted if first <= head < first + here]
            call = of_heads(call, heads)
        rows = None
        if self.queries is not None:
            rows = tuple(indices("queries", -1 if self.queries == "last" else self.queries, call.q.shape[2]))
            call = of_queries(call, list(rows))
        return call, tuple(first + head for head in heads), rows


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


def indices(what: str, chosen: Numbers, count: int) -> list[int]:
    """Chosen numbers from 0 to `count - 1`, as a list."""
    if chosen is None or isinstance(chosen, slice):
        return list(range(count))[chosen if chosen is not None else slice(None)]
    given = [chosen] if isinstance(chosen, int) else list(chosen)
    wrong = [number for number in given if not -count <= number < count]
    if wrong:
        raise LookError(
            f"record: {what}={chosen} was asked for and a layer has {count} {what}, from 0 to {count - 1}; {wrong[0]} "
            "is not among them."
        )
    return [number % count for number in given]


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
    return replace(call, q=call.q[:, heads], k=k, v=v, runs=runs, bias=pick(call.bias, heads), sinks=sinks)


def of_queries(call: Call, rows: list[int]) -> Call:
    """The call with only some of its queries."""
    runs = (
        None if call.runs is None else Runs(*(side if side.shape[2] == 1 else side[:, :, rows] for side in call.runs))
    )
    bias = call.bias if call.bias is None or call.bias.shape[2] == 1 else call.bias[:, :, rows]
    return replace(call, q=call.q[:, :, rows], runs=runs, bias=bias)
