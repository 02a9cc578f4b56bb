"""The pass that fills the levels of a map, strip by strip; several processes share the strips of one head.

Run under torchrun, or by two servers: each takes the next strip that nobody holds. A strip that a killed process held
is free again, since its lock ends with it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from headscope.attention.request import Request
from headscope.files import system
from headscope.look.kernels.part import part
from headscope.look.kernels.pool import pool
from headscope.tiles.strips import Strips

# Seconds between looks at what other processes do.
PAUSE = 0.2


def fill(request: Request, strips: Strips, between: Callable[[], None] = lambda: None) -> None:
    """Make the strips that are not there, and wait for those that other processes make.

    Args:
        request: the call of one head.
        between: called between blocks; what it raises ends the work.
    """
    while not strips.complete:
        between()
        if not fill_one(request, strips, between) and not strips.complete:
            time.sleep(PAUSE)


def fill_one(request: Request, strips: Strips, between: Callable[[], None] = lambda: None) -> bool:
    """Make the first strip that is not there and that no other process is making; whether there was one."""
    for strip in range(strips.shape.strips):
        if strips.has(strip):
            continue
        with held(strips, strip) as mine:
            if not mine or strips.has(strip):
                continue
            cell = 1 << strips.shape.base
            found = pool(part(request, strips.shape.rows(strip)), cell, cell, entropy=True, between=between)
            strips.write(strip, found)
            return True
    return False


@contextmanager
def held(strips: Strips, strip: int) -> Iterator[bool]:
    """Hold a strip, so that no other process makes it; false where another does. Without locks all is mine."""
    system.make_folders(strips.folder)
    path = strips.folder / f"strip-{strip:05}.lock"
    handle = system.append_to(path)
    mine = system.lock(handle) or not system.CAN_LOCK
    try:
        yield mine
    finally:
        if mine:
            with suppress(OSError):
                system.remove(path)
        os.close(handle)
