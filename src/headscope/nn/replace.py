"""Torch's attention layers inside an existing model, replaced where they stand."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from headscope.errors import ModelError
from headscope.nn.torch_multihead import TorchMultiheadAttention

Model = TypeVar("Model", bound=nn.Module)


def replace(model: Model, *, strict: bool = True) -> Model:
    """Let every `nn.MultiheadAttention` inside a model compute with `hs.attend`; returns the model.

    The layers stay the objects that they are, with their parameters, hooks, names and places: an optimizer made before
    goes on, shared layers stay shared, a state dict fits in both directions. Their calls mean what they meant: see
    `TorchMultiheadAttention`. The fused operator that `nn.TransformerEncoderLayer` takes in evaluation is left off,
    since it would pass the layers by. To call it again changes nothing.

    Args:
        strict: whether a layer that cannot be replaced is an error. Else there is a warning, and the rest is replaced.

    Raises:
        ModelError: layers that cannot be replaced, each with its path and the reason; or there is none to replace. The
            model is as before.

    Example:
        >>> import torch, headscope as hs
        >>> model = nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 24, batch_first=True), 3).eval()
        >>> x = torch.randn(2, 5, 6)
        >>> before = model(x)
        >>> bool((hs.nn.replace(model)(x) - before).abs().max() < 1e-5)
        True
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"replace: expected a torch.nn.Module, got {type(model).__name__}; give the model itself.")
    found = {name: module for name, module in model.named_modules() if is_layer(module)}
    reasons = {name: reason for name, module in found.items() if (reason := refusal(module)) is not None}
    if not found:
        raise ModelError(
            f"replace: {type(model).__name__} holds no nn.MultiheadAttention; attention that a model computes by "
            "itself is not replaced. A transformers model takes attn_implementation='headscope' after hs.hf.register()."
        )
    if reasons:
        lines = "; ".join(f"{name or type(model).__name__}: {reason}" for name, reason in reasons.items())
        if strict:
            raise ModelError(
                f"replace: {len(reasons)} of {len(found)} layers cannot be replaced: {lines}. Nothing was changed; "
                "strict=False replaces the rest."
            )
        warnings.warn(f"replace: left as they are: {lines}.", stacklevel=2)
    for name, module in found.items():
        if name not in reasons and not isinstance(module, TorchMultiheadAttention):
            module.__class__ = replacement(type(module))
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and isinstance(module.self_attn, TorchMultiheadAttention):
            # Torch reads this number for one thing: whether its fused operator can do the whole layer.
            module.activation_relu_or_gelu = 0
    return model


def is_layer(module: nn.Module) -> bool:
    """Whether a module is torch's attention layer, also where TorchScript has compiled it."""
    if isinstance(module, torch.jit.ScriptModule):
        return getattr(module, "original_name", None) == nn.MultiheadAttention.__name__
    return isinstance(module, nn.MultiheadAttention)


def refusal(module: nn.Module) -> str | None:
    """Why a layer cannot be replaced; None where it can, or is already."""
    if isinstance(module, torch.jit.ScriptModule):
        return "it is compiled by TorchScript; replace the layers first, and use torch.compile or torch.jit.trace"
    if isinstance(module, TorchMultiheadAttention):
        return None
    kind = type(module)
    if is_parametrized(module):
        return "it is parametrized (torch.nn.utils.parametrize); replace the layers first, then parametrize them"
    if "forward" in vars(module):
        return "its forward was replaced on the object (by hooks of accelerate, for instance); replace the layers first"
    own = [
        name for name in ("forward", "merge_masks") if getattr(kind, name) is not getattr(nn.MultiheadAttention, name)
    ]
    if own:
        return f"its class {kind.__name__} has a {' and a '.join(own)} of its own, which would not run"
    return None


# Made once for each class of layers, so that equal layers have equal classes.
_replacements: dict[Any, Any] = {nn.MultiheadAttention: TorchMultiheadAttention}


def replacement(kind: Any) -> Any:
    """The class that stands in for `nn.MultiheadAttention`, or for a subclass of it."""
    if kind not in _replacements:
        made = type(kind)(kind.__name__, (Replaced, kind, TorchMultiheadAttention), {})
        made.__module__, made.__qualname__ = kind.__module__, kind.__qualname__
        _replacements[kind] = made
    return _replacements[kind]


class Replaced(nn.Module):
    """A layer whose class is made here from a subclass of `nn.MultiheadAttention`: pickle finds it by that subclass."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        (_, kind, _) = type(self).__bases__
        return restored, (kind,), self.__getstate__()  # type: ignore[no-untyped-call]


def restored(kind: type[nn.Module]) -> nn.Module:
    """An empty layer for pickle and copies to fill."""
    made = replacement(kind)
    layer: nn.Module = made.__new__(made)
    return layer
