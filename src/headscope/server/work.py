"""Work on weights off the event loop: bounded, and dropped when the client that waits for it has hung up."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

from headscope.server.bounds import MOST_WAITING

Result = TypeVar("Result")
Between = Callable[[], None]


class HungUp(Exception):
    """The client is gone; nobody reads an answer."""


class Desk:
    """A few threads, and a count of the requests that wait for them.

    Args:
        idle: set while no request waits or runs; work in the background gives way while it is not.
    """

    def __init__(self, idle: threading.Event) -> None:
        self.idle = idle
        self.idle.set()
        self.pool = ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)), thread_name_prefix="headscope-work")
        self.waiting = 0
        self.closed = threading.Event()

    def close(self) -> None:
        """Stop what runs between two blocks, and take nothing more."""
        self.closed.set()
        self.pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, request: Request, work: Callable[[Between], Result]) -> Result:
        """What `work` gives, computed by a thread; its `between` raises when the client hangs up.

        Raises:
            HTTPException: too many requests wait already.
            HungUp: the client is gone.
        """
        if self.waiting >= MOST_WAITING or self.closed.is_set():
            raise HTTPException(503, "the server is busy; ask again in a second.", {"Retry-After": "1"})
        self.waiting += 1
        self.idle.clear()
        gone = threading.Event()

        def between() -> None:
            if gone.is_set() or self.closed.is_set():
                raise HungUp

        def begin() -> Result:
            between()
            return work(between)

        try:
            job = asyncio.get_running_loop().run_in_executor(self.pool, begin)
            watch = asyncio.ensure_future(hung_up(request))
            waits: set[asyncio.Future[Any]] = {job, watch}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                gone.set()
                job.cancel()
                job.add_done_callback(lambda done: None if done.cancelled() else done.exception())
                raise HungUp
            watch.cancel()
            return job.result()
        finally:
            self.waiting -= 1
            if not self.waiting:
                self.idle.set()


async def hung_up(request: Request) -> None:
    """Return when the client closes its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
