"""The thread that fills maps while a server answers: the head that was opened last goes first."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from headscope.errors import HeadscopeError
from headscope.tiles.filling import PAUSE, fill_one
from headscope.tiles.head_map import HeadMap
from headscope.tiles.sample import estimate

Phase = Literal["waiting", "estimate", "filling", "exact", "failed"]
# Weights of a head whose exact pass takes a second or two: no estimate is made for fewer.
SMALL = 2**31
log = logging.getLogger("headscope.tiles")


class Status(NamedTuple):
    """How far the levels of a map are."""

    phase: Phase
    rows: int
    queries: int
    seconds: float
    remaining: float | None
    generation: int
    error: str | None
    verified: bool


class Closed(Exception):
    """The filler was closed while it worked."""


class Filler:
    """Fills the maps that were asked for, one strip after the other, until it is closed.

    Args:
        between: called between two blocks; it may wait while something more urgent is computed.
    """

    def __init__(self, between: Callable[[], None] = lambda: None) -> None:
        self.between = between
        self.maps: list[HeadMap] = []
        self.begun: dict[HeadMap, tuple[float, int]] = {}
        self.took: dict[HeadMap, float] = {}
        self.failed: dict[HeadMap, str] = {}
        self.changed = threading.Condition()
        self.closed = False
        self.thread = threading.Thread(target=self._run, name="headscope-tiles", daemon=True)
        self.thread.start()

    def want(self, one: HeadMap) -> None:
        """Fill a map, before all others."""
        with self.changed:
            if self.maps[:1] != [one] and one not in self.failed:
                self.maps = [one, *(other for other in self.maps if other is not one)]
                self.changed.notify()

    def forget(self, one: HeadMap) -> None:
        """Fill a map no longer."""
        with self.changed:
            self.maps = [other for other in self.maps if other is not one]
            for known in (self.begun, self.took, self.failed):
                known.pop(one, None)

    def close(self, wait: float = 0.5) -> None:
        """Stop between two blocks; wait at most so many seconds for it."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.thread.join(wait)

    def status(self, one: HeadMap) -> Status:
        """How far a map is."""
        rows = one.strips.rows_from_the_start()
        done = rows == one.shape.queries
        if not done and self.took.pop(one, None) is not None:
            self.want(one)  # a strip was removed or damaged since: it is made again
        since = self.begun.get(one)
        seconds = self.took.get(one) or (0.0 if since is None else time.monotonic() - since[0])
        remaining: float | None = 0.0 if done else None
        if not done and since is not None and rows > since[1]:
            remaining = (time.monotonic() - since[0]) * (one.shape.queries - rows) / (rows - since[1])
        phase: Phase = "waiting"
        if one in self.failed:
            phase = "failed"
        elif done:
            phase = "exact"
        elif rows:
            phase = "filling"
        elif since is not None:
            phase = "estimate" if one.shape.queries * one.shape.keys > SMALL else "filling"
        return Status(
            phase, rows, one.shape.queries, seconds, remaining, one.generation, self.failed.get(one), one.proven()
        )

    def _next(self) -> HeadMap | None:
        with self.changed:
            while not self.closed and not self.maps:
                self.changed.wait()
            return None if self.closed else self.maps[0]

    def _run(self) -> None:
        while (one := self._next()) is not None:
            try:
                self._step(one)
            except Closed:
                return
            except (HeadscopeError, OSError, RuntimeError) as error:
                log.exception("the levels of a map cannot be made")
                self._end(one, self.failed, f"{error}")

    def _step(self, one: HeadMap) -> None:
        """The estimate of a map, or its next strip."""
        rows = one.strips.rows_from_the_start()
        with self.changed:
            if one not in self.maps:
                return  # forgotten meanwhile
            begun, _ = self.begun.setdefault(one, (time.monotonic(), rows))
        if one.strips.complete:
            self._end(one, self.took, time.monotonic() - begun)
        elif one.estimate is None and one.shape.queries * one.shape.keys > SMALL and not one.strips.there:
            one.estimate = estimate(one.call, one.shape, self._check)
        elif not one.proven():
            time.sleep(PAUSE)  # nothing is kept that may have been made from other numbers
        elif not fill_one(one.call, one.strips, self._check):
            time.sleep(PAUSE)  # another process makes the strips that are missing

    def _check(self) -> None:
        if self.closed:
            raise Closed
        self.between()

    def _end(self, one: HeadMap, outcome: dict[HeadMap, Any], value: Any) -> None:
        """Note how the filling of a map ended, unless it was forgotten meanwhile, and nothing of it may stay."""
        with self.changed:
            if one in self.maps:
                outcome[one] = value
                self.maps = [other for other in self.maps if other is not one]
