"""What a device can do, as one value: what the plan and the paths decide by, and what a test can make up."""

from __future__ import annotations

import importlib.metadata
import os
from functools import cache
from typing import NamedTuple

import torch

from headscope.compat.compiler import assumed_constant

# Bytes of shared memory that one block of threads may use, by compute capability, where a driver cannot be asked.
# Source: CUDA C++ Programming Guide, table of technical specifications per compute capability.
SHARED_MEMORY = {
    (7, 0): 98304, (7, 5): 65536, (8, 0): 166912, (8, 6): 101376, (8, 7): 166912, (8, 9): 101376, (9, 0): 232448,
    (10, 0): 232448, (10, 3): 232448, (11, 0): 232448, (12, 0): 101376, (12, 1): 101376,
}  # fmt: skip


class Device(NamedTuple):
    """A device as attention sees it.

    Attributes:
        kind: "cpu", "cuda", or another of torch's device types.
        capability: the compute capability of an NVIDIA GPU; None elsewhere.
        shared_memory: bytes that a block of threads may use.
        processors: streaming multiprocessors.
        triton: the version of Triton that is installed; None without it.
        interpreted: whether Triton runs in its interpreter, which needs no GPU.
    """

    kind: str = "cpu"
    capability: tuple[int, int] | None = None
    shared_memory: int = 0
    processors: int = 1
    triton: str | None = None
    interpreted: bool = False


def described(capability: tuple[int, int], processors: int = 132, triton: str | None = "3.6.0") -> Device:
    """An NVIDIA GPU of some compute capability, without there being one.

    Example:
        >>> described((9, 0)).shared_memory
        232448
    """
    return Device("cuda", capability, SHARED_MEMORY.get(capability, 0), processors, triton)


def device_of(device: torch.device) -> Device:
    """What a device of torch can do; asked once for each, and a constant of the graph while torch.compile traces."""
    return _constant(device.type, device.index)


@assumed_constant
def _constant(kind: str, index: int | None) -> Device:
    return _asked(kind, index, os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"))


@cache
def _asked(kind: str, index: int | None, interpreted: bool) -> Device:
    triton = triton_version()
    if kind != "cuda" or torch.version.hip is not None or not torch.cuda.is_available():
        # A fake tensor may be on a GPU that is not there.
        return Device(kind, triton=triton, interpreted=interpreted)
    found = torch.cuda.get_device_properties(index if index is not None else torch.cuda.current_device())
    capability = found.major, found.minor
    shared = getattr(found, "shared_memory_per_block_optin", 0) or SHARED_MEMORY.get(capability, 0)
    return Device(kind, capability, shared, found.multi_processor_count, triton, interpreted)


def capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured: what is made now lives in the graph's memory, and nothing may be kept."""
    # A fake tensor may be on a GPU that is not there.
    if device.type != "cuda" or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    return torch.cuda.is_current_stream_capturing()


def triton_version() -> str | None:
    """The version of Triton, without importing it."""
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return None
