"""Whether a module is still the one that was made here: only then may its weights be used without calling it."""

from __future__ import annotations

from typing import TypeGuard, TypeVar

from torch import Tensor, nn

from headscope.compat.torch import hooked

M = TypeVar("M", nn.Linear, nn.Embedding)


def untouched(module: nn.Module, kind: type[M]) -> TypeGuard[M]:
    """Whether a module is exactly of a kind of torch, its weight a plain tensor, and nobody is called with it.

    No for what was replaced (LoRA, quantization), parametrized, hooked, offloaded (its `forward` is another one then),
    or cut over devices (its weight is a tensor of another class). To call the module is right for all of these.

    Example:
        >>> linear = nn.Linear(3, 2)
        >>> before = untouched(linear, nn.Linear)
        >>> handle = linear.register_forward_hook(lambda *_: None)
        >>> before, untouched(linear, nn.Linear)
        (True, False)
    """
    if type(module) is not kind or "forward" in vars(module) or hooked(module):
        return False
    return type(module.weight) in (nn.Parameter, Tensor)
