"""How much memory a call takes beyond what was there before it: resident memory on a CPU, allocations on a GPU."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(field: str) -> int:
    """A field of this process's status in bytes: VmRSS (now) or VmHWM (the most since the last reset)."""
    found = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return int(found[1]) * 1024


def peak(work: Callable[[], object], device: str = "cpu") -> int:
    """Bytes at the highest point of a call, above those before it; what the call returns is counted.

    On a CPU this needs Linux, and a call that is large beside a few MB of noise.
    """
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    CLEAR.write_text("5")
    before = resident("VmRSS")
    kept = work()
    most = resident("VmHWM")
    del kept
    return most - before
