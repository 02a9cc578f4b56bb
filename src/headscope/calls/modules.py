"""Where in the model an attention call comes from: a stack of the modules that are running."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from torch import nn

from headscope.compat.compiler import uncompiled_path
from headscope.compat.torch import children_of

# Arguments in which modules get other states to attend to than their own.
OTHERS = ("key_value_states", "encoder_hidden_states", "memory", "cross_attention_states")


class Running(NamedTuple):
    """One module whose forward is running."""

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    # What the open blocks found out about this one run.
    notes: dict[str, Any]

    def argument(self, name: str) -> Any:
        """An argument of the running forward, by position or by name; None where it is missing."""
        if name in self.kwargs or not self.args:
            return self.kwargs.get(name)
        names = parameters(cast(Any, type(self.module)))[1 : len(self.args) + 1]
        return self.args[names.index(name)] if name in names else None

    def arguments(self) -> list[tuple[str, Any]]:
        """All arguments of the running forward with their names; "" for one that has none."""
        names = parameters(cast(Any, type(self.module)))[1 : len(self.args) + 1]
        return [*itertools.zip_longest(names, self.args, fillvalue=""), *self.kwargs.items()]


@functools.cache
def parameters(kind: Any) -> tuple[str, ...]:
    """The names of the arguments of a class's forward, `self` among them."""
    return tuple(inspect.signature(kind.forward).parameters)


class Stack:
    """The running modules of one model, outermost first."""

    def __init__(self, model: nn.Module) -> None:
        self.running: list[Running] = []
        self.ran: set[str] = set()
        # Is shown every module whose forward begins, after those that run around it.
        self.observer: Callable[[Running], None] | None = None
        # Whether a module of the model ran in a thread or a task in which the block is not open.
        self.elsewhere = False
        # The model is kept alive by its block, so that no other object gets one of these ids.
        self._paths = {id(module): uncompiled_path(name) for name, module in carriers(model)}

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Put a module on the stack whose forward begins; False where it is not one of the model's."""
        path = self._paths.get(id(module))
        if path is None:
            path = self._new(module)
            if path is None:
                return False
        frame = Running(path, module, args, kwargs, {})
        if self.observer is not None:
            self.observer(frame)
        self.running.append(frame)
        self.ran.add(path)
        return True

    def leave(self) -> None:
        """Take the module off whose forward has ended."""
        self.running.pop()

    def within(self, part: str | None) -> list[Running]:
        """The running modules; with a part of the innermost one that takes part without being called itself."""
        if part is None:
            return list(self.running)
        name, module = self.running[-1][:2]
        name = f"{name}.{part}" if name else part
        self.ran.add(name)
        return [*self.running, Running(name, module.get_submodule(part), (), {}, {})]

    def has(self, module: nn.Module) -> bool:
        """Whether a module is one of those in which attention may be called."""
        return id(module) in self._paths

    def _new(self, module: nn.Module) -> str | None:
        """The path of a module that was put into the running one after the block began (a wrapped or replaced one)."""
        if not self.running or is_leaf(module):
            return None
        parent = self.running[-1]
        for name, child in children_of(parent.module).items():
            if child is module:
                return uncompiled_path(f"{parent.name}.{name}" if parent.name else name)
        return None


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is torch's own, without submodules (Linear, LayerNorm, …): no attention is called there."""
    return not children_of(module) and type(module).__module__.startswith("torch.nn.modules")


def carriers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules in which attention may be called, each once, with their paths.

    As `named_modules` gives them, without torch's own leaves (Linear, LayerNorm, …); that one takes several times as
    long, and a block begins with this.
    """
    found: list[tuple[str, nn.Module]] = []
    seen: set[nn.Module] = set()

    def walk(name: str, module: nn.Module) -> None:
        if module in seen:
            return
        seen.add(module)
        if not is_leaf(module):
            found.append((name, module))
        for part, child in children_of(module).items():
            if child is not None:
                walk(f"{name}.{part}" if name else part, child)

    walk("", model)
    return found


def looks_like_attention(module: nn.Module) -> bool:
    """Whether the name of the class says that attention happens in here, and not in one of its children."""
    name = type(module).__name__.lower()
    if not ("attention" in name or name.endswith(("attn", "mha"))):
        return False
    return not any(looks_like_attention(child) for child in module.children())
