"""What in a model may be attention, seen without headscope: softmaxes, fused kernels, and modules by their names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Computed(TorchDispatchMode):
    """Keeps every softmax over the last axis, and counts what may be attention: it, and every fused kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = str(func)
        if "softmax" in name and "backward" not in name and args[0].ndim >= 3:
            self.count += 1
            # Over another axis than the last one: turned, so that rows are rows.
            self.weights.append(output.detach().movedim(args[1], -1).clone())
        self.count += "scaled_dot_product" in name
        return output


def attends(model: Any, inputs: dict[str, Any]) -> bool:
    """Whether anything in a model may be attention."""
    with Computed() as seen, torch.no_grad():
        model(**inputs)
    return seen.count > 0


def not_captured(model: Any, inputs: dict[str, Any], captured: set[str]) -> tuple[str, ...]:
    """The classes of modules that look like attention, ran, and in which nothing was captured."""
    ran: set[str] = set()
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: ran.add(name) or None)
        for name, module in model.named_modules()
        if looks_like_attention(module)
    ]
    try:
        with torch.no_grad():
            torch.manual_seed(0)
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    modules = dict(model.named_modules())
    missed = {name for name in ran if not any(within(name, one) or within(one, name) for one in captured)}
    return tuple(sorted({type(modules[name]).__name__ for name in missed}))


def within(inner: str, outer: str) -> bool:
    """Whether a module is another, or inside it."""
    return inner == outer or inner.startswith(f"{outer}.") or not outer


def looks_like_attention(module: Any) -> bool:
    """Whether the name of the class says so, and that of no module inside it."""

    def named(one: Any) -> bool:
        name = type(one).__name__.lower()
        return ("attention" in name or name.endswith(("attn", "mha"))) and not name.endswith("output")

    return named(module) and not any(named(one) for one in module.modules() if one is not module)
