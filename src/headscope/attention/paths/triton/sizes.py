"""How large the blocks of each kernel are: a table per class of device, checked by compiling ahead of time.

The numbers keep every kernel, but those of float32 above head size 128, free of register spills for compute capability
8.0, 9.0 and 10.0 (`docs/gpu.md` has the registers and the shared memory; `tests/attention/test_triton_compiles.py`
makes them). They come from the compiler's report, not from a measurement of speed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from headscope.attention.device import Device


class Size(NamedTuple):
    """The blocks of a kernel: queries, keys, warps, and stages of its pipeline of loads."""

    queries: int
    keys: int
    warps: int
    stages: int


# By kernel and padded head size, for 16-bit numbers and a call without softcap, line of biases or dropout.
FEW_OPTIONS = {
    "forward": {64: Size(128, 64, 8, 3), 128: Size(128, 64, 8, 3), 256: Size(64, 32, 8, 2)},
    "queries": {64: Size(64, 64, 8, 2), 128: Size(64, 64, 8, 2), 256: Size(32, 32, 8, 2)},
    "keys": {64: Size(64, 64, 8, 2), 128: Size(32, 64, 8, 2), 256: Size(32, 32, 8, 2)},
    "look": {64: Size(64, 64, 8, 2), 128: Size(64, 64, 8, 2), 256: Size(32, 64, 8, 2)},
    "split": {64: Size(16, 64, 4, 3), 128: Size(16, 64, 4, 3), 256: Size(16, 32, 4, 2)},
}
# With any of these options: more numbers live at once, so blocks are smaller.
MANY_OPTIONS = {
    "forward": {64: Size(64, 64, 8, 3), 128: Size(64, 32, 8, 2), 256: Size(32, 32, 8, 2)},
    "queries": {64: Size(64, 32, 8, 2), 128: Size(64, 32, 8, 2), 256: Size(32, 32, 8, 2)},
    "keys": {64: Size(32, 32, 8, 2), 128: Size(32, 32, 8, 2), 256: Size(16, 32, 8, 2)},
    "look": {64: Size(64, 32, 8, 2), 128: Size(64, 32, 8, 2), 256: Size(32, 32, 8, 2)},
    "split": {64: Size(16, 32, 4, 2), 128: Size(16, 32, 4, 2), 256: Size(16, 32, 4, 2)},
}
# Before compute capability 9.0, where these differ.
AMPERE = {("forward", 128): Size(128, 32, 8, 3), ("keys", 64): Size(32, 64, 8, 2)}
# Numbers of float32, where the blocks of 32 x 32 would spill.
FLOAT32 = {
    ("forward", 128): Size(16, 32, 8, 1),
    ("queries", 128): Size(16, 32, 8, 1),
    ("keys", 128): Size(16, 16, 8, 1),
    ("look", 128): Size(16, 32, 8, 1),
    # The smallest that a product takes: these still spill some bytes, any larger ones thousands.
    **{(kernel, 256): Size(16, 16, 8, 1) for kernel in ("forward", "queries", "keys", "look")},
}
# Triton's interpreter: small, so that small inputs have many blocks.
INTERPRETED = Size(16, 16, 4, 1)

KERNELS = tuple(FEW_OPTIONS)


def padded(size: int) -> int:
    """A head size as the products of a GPU take it: a power of two, at least 16.

    Example:
        >>> padded(80)
        128
    """
    return max(16, 1 << (size - 1).bit_length())


def size_of(kernel: str, d: int, e: int, dtype: torch.dtype, device: Device, options: bool = False) -> Size:
    """The blocks of a kernel (one of `KERNELS`) for head sizes, a dtype, a device and, perhaps, many options."""
    if device.interpreted:
        return INTERPRETED
    width = max(padded(d), padded(e), 64)
    found = (MANY_OPTIONS if options else FEW_OPTIONS)[kernel][width]
    if not options and (device.capability or (0, 0)) < (9, 0):
        found = AMPERE.get((kernel, width), found)
    if dtype == torch.float32:
        # Numbers of twice the size, in three products for each (3xTF32).
        found = FLOAT32.get((kernel, width), Size(min(found.queries, 32), 16 if width == 256 else 32, 8, 1))
    if device.shared_memory < shared_memory(found, d, e, dtype):
        # A device of the small kind (99 KB) takes one stage of loads less.
        return found._replace(stages=1)
    return found


def shared_memory(size: Size, d: int, e: int, dtype: torch.dtype) -> int:
    """Bytes of shared memory that the blocks of queries and of keys, in all their stages, may need at most."""
    row = (padded(d) + padded(e)) * dtype.itemsize
    return row * (size.queries + size.keys * size.stages)
