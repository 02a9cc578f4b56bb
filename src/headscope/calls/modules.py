"""Where in the model an attention call comes from: a stack of the modules that are running, kept by forward hooks."""

from __future__ import annotations

import functools
import inspect
import threading
from typing import Any, NamedTuple, cast

from torch import nn
from torch.utils.hooks import RemovableHandle

# Arguments in which modules are given what they attend to, when it is not what they ask from.
OTHERS = ("key_value_states", "encoder_hidden_states", "memory", "cross_attention_states")


class Running(NamedTuple):
    """One module whose forward is running."""

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    # What others found out about this one run.
    notes: dict[str, Any]

    def argument(self, name: str) -> Any:
        """An argument of the running forward, however it was given; None when it was not."""
        if name in self.kwargs or not self.args:
            return self.kwargs.get(name)
        names = parameters(cast(Any, type(self.module)))[1 : len(self.args) + 1]
        return self.args[names.index(name)] if name in names else None


@functools.cache
def parameters(kind: Any) -> tuple[str, ...]:
    """The names of the arguments of a class's forward, `self` among them."""
    return tuple(inspect.signature(kind.forward).parameters)


class Stack:
    """The running modules of one model in one thread, outermost first."""

    def __init__(self, model: nn.Module) -> None:
        """Put the hooks on."""
        self.running: list[Running] = []
        self.ran: set[str] = set()
        self._handles: list[RemovableHandle] = []
        self._thread = threading.get_ident()
        for name, module in carriers(model):
            path = name.replace("_orig_mod.", "").removesuffix("_orig_mod")
            self._handles.append(module.register_forward_pre_hook(self._enter(path), with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._leave))

    def _enter(self, name: str) -> Any:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if threading.get_ident() == self._thread:
                self.running.append(Running(name, module, args, kwargs, {}))
                self.ran.add(name)

        return enter

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        # A forward that ended by an exception, which the model caught, has left its entry above this one.
        if threading.get_ident() == self._thread:
            while self.running and self.running.pop().module is not module:
                continue

    def remove(self) -> None:
        """Take every hook off again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.running.clear()


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
        inner = module._modules
        if inner or not type(module).__module__.startswith("torch.nn.modules"):
            found.append((name, module))
        for part, child in inner.items():
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


def crosses(running: Running) -> bool | None:
    """Whether a module attends to something other than what it asks from; None when nothing tells."""
    flag = getattr(running.module, "is_cross_attention", None)
    if isinstance(flag, bool) and flag:
        return True
    if any(running.argument(name) is not None for name in OTHERS):
        return True
    name = running.name.lower()
    if any(part in name for part in ("cross", "encoder_attn", "encdec", "encoder_decoder")):
        return True
    return None
