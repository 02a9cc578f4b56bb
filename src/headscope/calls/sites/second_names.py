"""Listening to the functions of flash-attn and xformers, wherever a module has them under a name of its own.

`from flash_attn import flash_attn_func` makes a second name for a function; each name that a loaded module has for one
is listened to for the time of a block.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable
from typing import Any

from headscope.recording import interface, kernels, patches

FLASH = (
    "flash_attn_func", "flash_attn_qkvpacked_func", "flash_attn_kvpacked_func", "flash_attn_varlen_func",
    "flash_attn_varlen_qkvpacked_func", "flash_attn_varlen_kvpacked_func", "flash_attn_with_kvcache",
)  # fmt: skip
# Where the functions are defined: flash-attn 2, 3 and 4, and xformers.
HOMES = {
    "flash_attn.flash_attn_interface": FLASH,
    "flash_attn_interface": FLASH,
    "flash_attn.cute.interface": FLASH,
    "xformers.ops.fmha": ("memory_efficient_attention",),
}

_lock = threading.RLock()
_blocks: list[int] = []
_places: list[tuple[Any, str, patches.Listener]] = []


def install() -> None:
    """Begin to listen, once for each block."""
    with _lock:
        _blocks.append(threading.get_ident())
        if len(_blocks) > 1:
            return
        functions = {}
        for home, names in HOMES.items():
            module = sys.modules.get(home)
            for name in names:
                function = getattr(module, name, None)
                if callable(function):
                    functions[id(function)] = function
        if not functions:
            return
        for module in [*sys.modules.values()]:
            for name, value in list(getattr(module, "__dict__", {}).items()):
                if id(value) in functions and callable(value):
                    listener = listen_xformers if value.__name__.startswith("memory") else listen_flash
                    patches.install(module, name, listener)
                    _places.append((module, name, listener))


def remove() -> None:
    """Stop listening for one block."""
    with _lock:
        _blocks.pop()
        while not _blocks and _places:
            patches.remove(*_places.pop())


def listen_flash(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function of flash-attn; heard when it has returned, since one of them fills its cache itself."""
    translate = kernels.cache if original.__name__.endswith("kvcache") else kernels.flash
    return heard(original, args, kwargs, lambda session, given: translate(given))


def listen_xformers(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The function of xformers."""
    return heard(original, args, kwargs, lambda session, given: kernels.xformers(session.read, given))


def heard(
    original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], make: Callable[[Any, Any], Any]
) -> Any:
    """The function's own answer, after all blocks of the thread have heard of the call."""
    interface.local.quiet += 1
    try:
        output = original(*args, **kwargs)
    finally:
        interface.local.quiet -= 1
    if interface.local.sessions:
        given = inspect.signature(original).bind(*args, **kwargs).arguments
        for session in list(interface.local.sessions):
            session.hear(lambda _, s=session: make(s, dict(given)))
    return output
