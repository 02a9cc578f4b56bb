"""Functions of torch and of other libraries, replaced while a block is open and then as they were.

A `TorchFunctionMode` does not see every function. One that it does not see is replaced by a wrapper while at least one
block is open, anywhere in the process; the wrapper passes the call through unless a block of its own thread is open.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

Wrapper = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class Replacement(NamedTuple):
    """A function `owner.name`, and what stands in for it: `wrapper(original, args, kwargs)`."""

    owner: Any
    name: str
    wrapper: Wrapper


_lock = threading.RLock()
# For each replaced function: what stood there before, and how many blocks use the replacement.
_users: dict[tuple[int, str], tuple[Any, int]] = {}


def install(one: Replacement) -> None:
    """Let the wrapper stand in for the function until `remove`; counted, since blocks may overlap."""
    with _lock:
        key = (id(one.owner), one.name)
        if key in _users:
            original, count = _users[key]
            _users[key] = original, count + 1
            return
        original = vars(one.owner)[one.name]

        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            return one.wrapper(original, args, kwargs)

        setattr(one.owner, one.name, replacement)
        _users[key] = original, 1


def remove(one: Replacement) -> None:
    """Undo one `install`; the last one puts the original back."""
    with _lock:
        key = (id(one.owner), one.name)
        original, count = _users[key]
        if count > 1:
            _users[key] = original, count - 1
        else:
            del _users[key]
            setattr(one.owner, one.name, original)
