"""How large the blocks of each kernel are: a table per class of device, checked by compiling ahead of time.

The numbers keep every kernel free of register spills for compute capability 8.0, 9.0 and 10.0 (`docs/gpu.md` has the
registers and the shared memory; `tests/attention/test_triton_compiles.py` makes them). They come from the compiler's
report, not from a measurement of speed.
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


# By the padded head size, for 16-bit numbers.
FORWARD = {
    16: Size(128, 64, 4, 3), 32: Size(128, 64, 4, 3), 64: Size(128, 64, 4, 3), 128: Size(128, 64, 8, 3),
    256: Size(64, 32, 4, 2),
}  # fmt: skip
QUERIES_BACKWARD = {
    16: Size(64, 64, 4, 2), 32: Size(64, 64, 4, 2), 64: Size(64, 64, 4, 2), 128: Size(64, 64, 8, 2),
    256: Size(32, 32, 4, 1),
}  # fmt: skip
KEYS_BACKWARD = {
    16: Size(64, 64, 4, 2), 32: Size(64, 64, 4, 2), 64: Size(64, 64, 4, 2), 128: Size(64, 64, 8, 2),
    256: Size(32, 32, 4, 1),
}  # fmt: skip
SPLIT = {
    16: Size(16, 64, 4, 3),
    32: Size(16, 64, 4, 3),
    64: Size(16, 64, 4, 3),
    128: Size(16, 64, 4, 3),
    256: Size(16, 32, 4, 2),
}
# Full float32 takes twice the room and three products for each (3xTF32).
WIDE = Size(32, 32, 4, 1)
# Triton's interpreter: small, so that small inputs have many blocks.
INTERPRETED = Size(16, 16, 4, 1)

TABLES = {"forward": FORWARD, "queries": QUERIES_BACKWARD, "keys": KEYS_BACKWARD, "split": SPLIT}


def padded(size: int) -> int:
    """A head size as the products of a GPU take it: a power of two, at least 16.

    Example:
        >>> padded(80)
        128
    """
    return max(16, 1 << (size - 1).bit_length())


def size_of(kernel: str, d: int, e: int, dtype: torch.dtype, device: Device) -> Size:
    """The blocks of a kernel ("forward", "queries", "keys" or "split") for head sizes, a dtype and a device."""
    if device.interpreted:
        return INTERPRETED
    found = TABLES[kernel][max(padded(d), padded(e))]
    if dtype == torch.float32:
        return Size(min(found.queries, WIDE.queries), min(found.keys, WIDE.keys), found.warps, WIDE.stages)
    if device.shared_memory < shared_memory(found, d, e, dtype):
        # A device of the small kind (99 KB) takes one stage of loads less.
        return found._replace(stages=1)
    return found


def shared_memory(size: Size, d: int, e: int, dtype: torch.dtype) -> int:
    """Bytes of shared memory that the blocks of queries and of keys, in all their stages, may need at most."""
    row = (padded(d) + padded(e)) * dtype.itemsize
    return row * (size.queries + size.keys * size.stages)
