"""The part of a recording that one process of several has, and the whole that the parts make.

Where a model is cut over processes by its heads (tensor parallelism), each captures its own heads of every layer, under
the model's numbers. Where processes run whole models on batches of their own (FSDP, data parallelism), each captures
its own batch items. Where both, both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor

from headscope.attention.masks.runs import Runs
from headscope.calls.call import Call
from headscope.calls.mask_rows import Meaning, Reader
from headscope.calls.modules import Running


class Rank(NamedTuple):
    """One process of several.

    Attributes:
        number: which one, from 0.
        of: how many there are.
        group: the processes among which the heads of each layer were shared out, this one among them.
    """

    number: int
    of: int
    group: tuple[int, ...]

    def __str__(self) -> str:
        return f"rank {self.number} of {self.of}"


class Share(NamedTuple):
    """Which heads of an attention call this process has.

    Attributes:
        first: the model's number of the first one.
        total: how many the model has.
        group: the processes that have the others, this one among them.
    """

    first: int
    total: int
    group: tuple[int, ...]


def here(share: Share | None = None) -> Rank | None:
    """This process, where torch.distributed runs more than one."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() < 2:
        return None
    number = dist.get_rank()
    return Rank(number, dist.get_world_size(), (number,) if share is None else share.group)


def own_part(call: Call, running: Sequence[Running]) -> tuple[Call, Share | None]:
    """A call with plain tensors that hold what this process has of it, and which heads these are.

    None where the process has all heads. A tensor that is cut along anything but items and heads is put together, on
    every process at once.
    """
    if not dist.is_available() or not dist.is_initialized():
        return call, None
    share = share_of_tensor(call.q) or share_of_module(call, running)
    runs = None if call.runs is None else Runs(plain(call.runs.start), plain(call.runs.stop))
    parts = {name: plain(getattr(call, name)) for name in ("q", "k", "v", "bias", "by_offset")}
    sinks = call.sinks.to_local() if is_cut(call.sinks) else call.sinks  # type: ignore[union-attr]
    call = replace(call, **parts, runs=runs, sinks=sinks)
    if share is None:
        return call, None
    # What stands for all heads of the model is cut to those that are here.
    mine = slice(share.first, share.first + call.q.shape[1])

    def cut(x: Tensor | None, axis: int) -> Tensor | None:
        return x.narrow(axis, mine.start, call.q.shape[1]) if x is not None and x.shape[axis] == share.total else x

    if call.runs is not None:
        start, stop = (cut(x, 1) for x in call.runs)
        assert start is not None
        assert stop is not None
        call.runs = Runs(start, stop)
    call.bias, call.sinks, call.by_offset = cut(call.bias, 1), cut(call.sinks, 0), cut(call.by_offset, 0)
    return call, share


class PartReader(Reader):
    """Reads masks that are spread over processes: what this process has of them."""

    def __call__(self, mask: Tensor) -> Meaning:
        """What the mask says to the heads of this process."""
        return super().__call__(plain(mask[(None,) * (4 - mask.ndim)]) if is_cut(mask) else mask)


def is_cut(x: object) -> bool:
    """Whether a tensor is spread over processes."""
    if not dist.is_available() or not dist.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(x, DTensor)


def plain(x: Any) -> Any:
    """What this process has of a tensor `(batch, heads, …)`."""
    if not is_cut(x):
        return x
    if all(placement.is_replicate() or placement.is_shard(0) or placement.is_shard(1) for placement in x.placements):
        return x.to_local()
    return x.full_tensor()


def share_of_tensor(q: Tensor) -> Share | None:
    """The share of heads of a process, where the queries themselves are spread over processes."""
    if not is_cut(q):
        return None
    placed: Any = q
    axes = [i for i, placement in enumerate(placed.placements) if placement.is_shard(1)]
    if len(axes) != 1:
        return None
    return share_along(placed.device_mesh, axes[0], q.shape[1])


def share_of_module(call: Call, running: Sequence[Running]) -> Share | None:
    """The share of heads of a process, where the weights that made the queries are spread over processes.

    While a module runs, FSDP has put its weights together; those that still are spread are so by heads, unless what
    they made was put together before the call: then there are as many queries as the weights have rows.
    """
    (_, heads, _, size), groups = call.q.shape, call.k.shape[1]
    made = (heads * size, (heads + 2 * groups) * size)
    module = next((frame.module for frame in reversed(running) if any(True for _ in frame.module.parameters())), None)
    if module is None:
        return None
    for parameter in module.parameters():
        if not is_cut(parameter):
            continue
        placed: Any = parameter
        for axis, placement in enumerate(placed.placements):
            ranks = placed.device_mesh.size(axis)
            if placement.is_shard(0) and parameter.shape[0] in [ranks * rows for rows in made] and ranks > 1:
                return share_along(placed.device_mesh, axis, heads * ranks)
    return None


def share_along(mesh: Any, axis: int, total: int) -> Share:
    """The share of this process, of heads that are cut along one axis of a mesh."""
    each = math.ceil(total / mesh.size(axis))
    group = tuple(dist.get_process_group_ranks(mesh.get_group(axis)))
    return Share(each * mesh.get_local_rank(axis), total, group)
