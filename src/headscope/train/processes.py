"""A watch over a model that several processes train together: all of them look, one of them writes."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import nn

from headscope.recording.ranks.share import here, is_cut
from headscope.recording.recording import Recording


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
