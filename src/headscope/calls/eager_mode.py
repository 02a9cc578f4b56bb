"""Compiled models run eagerly while a block is open, and are compiled again afterwards: no compiled code is lost.

A compiled region calls none of the functions that are intercepted. Torch has a switch for the whole process, other
threads included, that sends every compiled function to the code it was made from; the compiled code stays in its cache.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from headscope.compat.compiler import eager_mode

_lock = threading.RLock()
_blocks = 0
_switch: Any = None


def install() -> None:
    """Set compiled code aside, once for each block."""
    global _blocks  # noqa: PLW0603
    with _lock:
        _blocks += 1
    refresh()


def refresh() -> None:
    """Set the switch if a block is open and torch's compiler is loaded: it may be loaded inside a block."""
    global _switch  # noqa: PLW0603
    if _switch is None and _blocks and "torch._dynamo" in sys.modules:
        with _lock:
            if _switch is None:
                _switch = eager_mode()


def remove() -> None:
    """The last block to end puts back what was there before the first."""
    global _blocks, _switch  # noqa: PLW0603
    with _lock:
        _blocks -= 1
        if not _blocks and _switch is not None:
            _switch.__exit__(None, None, None)
            _switch = None
