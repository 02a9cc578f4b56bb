"""Compiled models run eagerly while somebody listens, and are compiled again afterwards: nothing is thrown away.

A compiled region calls none of the functions that are listened to. Torch has a switch for the whole process that sends
every compiled function to the code it was made from; the compiled code stays in its cache.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import torch

_lock = threading.RLock()
_open: list[Any] = [0, None]


def install() -> None:
    """Compiled code is set aside, once for each block; without torch's compiler there is none, and nothing to do."""
    with _lock:
        _open[0] += 1
        if _open[1] is None and "torch._dynamo" in sys.modules:
            _open[1] = torch.compiler.set_stance("force_eager")


def remove() -> None:
    """The last block to end puts back what was there before the first."""
    with _lock:
        _open[0] -= 1
        if not _open[0] and _open[1] is not None:
            _open[1].__exit__(None, None, None)
            _open[1] = None
