"""What several processes that train one model do together: all of them look or predict, one of them writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch.distributed as dist
from torch import nn

from headscope.recording.ranks.share import here, is_cut
from headscope.recording.recording import Recording

T = TypeVar("T")
U = TypeVar("U")


def writes() -> bool:
    """Whether this process is the one that writes: the first of all, or the only one."""
    rank = here()
    return rank is None or rank.number == 0


def is_spread(model: nn.Module) -> bool:
    """Whether the weights of a model are spread over processes, so that it only runs on all of them at once."""
    return here() is not None and any(is_cut(parameter) for parameter in model.parameters())


def agreed(model: nn.Module, value: Any) -> Any:
    """What the first process says, where a model only runs on all at once: they must look at the same steps."""
    if not is_spread(model):
        return value
    shared = [value]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def whole(recording: Recording) -> Recording:
    """The recording of all heads of the model.

    Where every process has them all (FSDP, copies of a model), its own recording of the probe is whole already, and
    nobody waits for the others.
    """
    if recording.rank is None or len(recording.rank.group) == 1:
        return Recording(recording.layers, recording.model)
    return recording.gather()


def put_back(model: nn.Module) -> None:
    """Give back the weights that FSDP put together for a forward pass, as no backward pass will do it."""
    if here() is None:
        return
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def in_shares(rows: Sequence[T], predict: Callable[[Sequence[T]], Sequence[U]]) -> list[U]:
    """What is predicted for each row, every process for its share of them; all processes get everything.

    Example:
        >>> in_shares([1, 2, 3], lambda rows: [10 * row for row in rows])
        [10, 20, 30]
    """
    rank = here()
    if rank is None:
        return list(predict(rows))
    shares: list[Any] = [None] * rank.of
    dist.all_gather_object(shares, list(predict(rows[rank.number :: rank.of])))
    found = list[U]()
    for place in range(len(rows)):
        found.append(shares[place % rank.of][place // rank.of])
    return found
