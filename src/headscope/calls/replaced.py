"""Functions of torch and of other libraries, listened to for the time of a block and then as they were.

A function that a `TorchFunctionMode` does not see is replaced by a listener while at least one recording block is open,
anywhere in the process; the listener does nothing but hand on unless its own thread has a block open.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

Listener = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

_lock = threading.RLock()
# For each place: its owner, what stood there before, and who listens, how often; the last to come listens first.
_users: dict[tuple[int, str], tuple[Any, Any, dict[Listener, int]]] = {}


def install(owner: Any, name: str, listener: Listener) -> None:
    """Let `listener(original, args, kwargs)` stand in for `owner.name` until `remove`; counted: blocks may overlap."""
    with _lock:
        key = (id(owner), name)
        if key in _users:
            listeners = _users[key][2]
            listeners[listener] = listeners.get(listener, 0) + 1
            return
        original, listeners = vars(owner)[name], {listener: 1}

        @functools.wraps(original)
        def listening(*args: Any, **kwargs: Any) -> Any:
            heard = original
            for one in tuple(listeners):
                heard = functools.partial(hand_on, one, heard)
            return heard(*args, **kwargs)

        _users[key] = (owner, original, listeners)
        setattr(owner, name, listening)


def hand_on(listener: Listener, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """One listener's turn."""
    return listener(original, args, kwargs)


def remove(owner: Any, name: str, listener: Listener) -> None:
    """Undo one `install`; the last one puts the original back."""
    with _lock:
        key = (id(owner), name)
        kept, original, listeners = _users[key]
        listeners[listener] -= 1
        if not listeners[listener]:
            del listeners[listener]
        if not listeners:
            del _users[key]
            setattr(kept, name, original)


def installed(owner: Any, name: str, listener: Listener) -> bool:
    """Whether somebody listens there with this listener."""
    with _lock:
        return (id(owner), name) in _users and listener in _users[id(owner), name][2]
