"""How the calls of a model are intercepted while a block is open: a torch function mode for each thread, and functions
that are replaced. What is intercepted is listed in `calls/sites`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from headscope.calls import blocks, eager_mode, replaced
from headscope.calls.blocks import Block
from headscope.calls.by_hand.follower import Follower
from headscope.calls.replaced import Replacement
from headscope.calls.sites import SITES
from headscope.calls.sites.by_hand import ByHand
from headscope.compat.torch import operator_types, remove_mode, without_mode

# What operators are, however they are called; found once, since every function that the model calls is tested.
OPERATORS = operator_types()
BY_HAND = next(site for site in SITES if isinstance(site, ByHand))
# Torch's layers that have a fast path.
FAST = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)
Handler = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


class Interception(TorchFunctionMode):
    """Sees every function of torch that a thread calls while it has a block open, and calls it as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: dict[Any, Handler] = {f: site.around for site in SITES for f in site.functions()}
        self.operators: dict[str, Handler] = {name: site.around for site in SITES for name in site.operators}
        self.follower = Follower()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        handler = self.functions.get(func)
        if handler is not None:
            return handler(func, args, kwargs)
        if is_operator(func):
            handler = self.operators.get(getattr(func, "__name__", "").split(".")[0])
            return func(*args, **kwargs) if handler is None else handler(func, args, kwargs)
        if blocks.local.outer:
            return func(*args, **kwargs)
        return BY_HAND.follow(self.follower, func, args, kwargs)


def is_operator(func: Any) -> bool:
    """Whether a function is one of torch's operators, however it is called."""
    return isinstance(func, OPERATORS)


class Local(threading.local):
    """The mode of one thread, how many blocks use it, and the module whose forward is running."""

    mode: Interception | None = None
    blocks: int = 0
    module: nn.Module | None = None


_local = Local()


@contextlib.contextmanager
def opened(block: Block) -> Iterator[None]:
    """Intercept the calls of a block's model. Whatever fails in the middle, nothing stays installed."""
    with contextlib.ExitStack() as stack:
        for one in replacements():
            replaced.install(one)
            stack.callback(replaced.remove, one)
        eager_mode.install()
        stack.callback(eager_mode.remove)
        push_mode()
        stack.callback(pop_mode, threading.get_ident())
        blocks.add(block)
        stack.callback(blocks.discard, block)
        yield


def replacements() -> list[Replacement]:
    """Every function that is replaced while a block is open, as far as its library is loaded."""
    own = [
        Replacement(nn.Module, "__call__", call_module),
        Replacement(torch, "compile", compile_later),
        Replacement(torch.overrides, "has_torch_function", has_torch_function),
    ]
    return own + [one for site in SITES for one in site.replacements()]


def push_mode() -> None:
    """The thread's mode, once for all its blocks: torch has a stack of modes, and blocks of tasks end in any order."""
    if not _local.blocks:
        _local.mode = Interception()
        _local.mode.__enter__()  # type: ignore[no-untyped-call]
    _local.blocks += 1


def pop_mode(thread: int) -> None:
    """Take the mode off with the thread's last block, from below the modes that others have put on since."""
    if threading.get_ident() != thread:
        return  # a block that another thread closed: its mode passes everything through
    _local.blocks -= 1
    if _local.blocks:
        return
    assert _local.mode is not None
    remove_mode(_local.mode)
    _local.mode = None


def call_module(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`nn.Module.__call__`: the model's modules are on the stacks of their blocks while they run."""
    module, *inputs = args
    entered = [block for block in blocks.here() if block.stack.enter(module, tuple(inputs), kwargs)]
    if entered:
        eager_mode.refresh()
    else:
        blocks.elsewhere(module)
    around, _local.module = _local.module, module
    try:
        return original(*args, **kwargs)
    finally:
        _local.module = around
        for block in entered:
            block.stack.leave()


def compile_later(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.compile`: what is compiled for the first time inside a block runs eagerly, too, until the block ends."""
    compiled = original(*args, **kwargs)
    eager_mode.refresh()
    return compiled


def has_torch_function(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What torch's layers ask before they take their fast path; they leave it where a mode such as ours is on.

    The answer is that without our mode, unless outputs are to be edited: the mode sees the function of the fast path.
    """
    mode = _local.mode
    if mode is None or not isinstance(_local.module, FAST) or blocks.editing():
        return original(*args, **kwargs)
    with without_mode(mode):
        return original(*args, **kwargs)
