"""What of torch can be converted into a layer of ours: modules that compute as their class of torch does."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import TypeVar

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from headscope.compat.torch import hooked_itself
from headscope.errors import ModelError
from headscope.nn.torch_multihead import TorchMultiheadAttention

Theirs = TypeVar("Theirs", bound=nn.Module)
Layer = TypeVar("Layer", bound=nn.Module)
Part = TypeVar("Part", bound=nn.Module | None)

# Methods whose own version changes nothing that a module computes.
HARMLESS = frozenset({"__init__", "__setstate__", "__getstate__", "__reduce_ex__", "_reset_parameters", "extra_repr"})


def checked(theirs: nn.Module, kind: type[Theirs], role: str) -> Theirs:
    """A module that is of a kind of torch and computes as that one does; raises `ModelError` for any other."""
    name = type(theirs).__name__
    if not isinstance(theirs, kind):
        raise ModelError(f"from_torch: {role} is a {name}; this converts nn.{kind.__name__}.")
    if isinstance(theirs, TorchMultiheadAttention):
        own = own_methods(theirs, TorchMultiheadAttention)
    else:
        own = own_methods(theirs, kind)
    if own:
        raise ModelError(
            f"from_torch: {role} is a {name}, an nn.{kind.__name__} with a {' and a '.join(own)} of its own, which "
            "would not run; convert the parts inside that are torch's, or keep it and call hs.nn.replace(model)."
        )
    if hooked_itself(theirs) or is_parametrized(theirs):
        lost = "parametrizations" if is_parametrized(theirs) else "hooks"
        raise ModelError(
            f"from_torch: {role} has {lost}, which would get lost; take them off, convert, and put them on the result."
        )
    return theirs


def own_methods(theirs: nn.Module, kind: type[nn.Module]) -> list[str]:
    """The methods of a class of torch that a module of that kind has a version of its own of."""
    methods = [name for name, found in vars(kind).items() if inspect.isfunction(found) and name not in HARMLESS]
    return [name for name in methods if name in vars(theirs) or getattr(type(theirs), name) is not vars(kind)[name]]


def each_once(layers: Iterable[nn.Module], convert: Callable[[nn.Module], Layer]) -> list[Layer]:
    """Convert layers; one that stands in several places is converted once and stays shared.

    Raises:
        ModelError: two layers share a parameter.
    """
    layers = list(layers)
    check_apart(dict.fromkeys(layers))
    made: dict[nn.Module, Layer] = {}
    return [made[layer] if layer in made else made.setdefault(layer, convert(layer)) for layer in layers]


def check_apart(modules: Iterable[nn.Module]) -> None:
    """Raise `ModelError` when modules that are converted each for itself share a parameter: it would become two."""
    seen: set[nn.Parameter] = set()
    for module in modules:
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if parameter in seen:
                raise ModelError(
                    f"from_torch: {name} is in two places, and would become two parameters; convert a model whose "
                    "layers share nothing, or share whole layers, which stay shared."
                )
            seen.add(parameter)


def copied(part: Part, role: str) -> Part:
    """A part of its own, whatever it is: it is only ever called.

    Raises:
        ModelError: torch cannot copy it.
    """
    try:
        return copy.deepcopy(part)
    except RuntimeError as error:
        raise ModelError(
            f"from_torch: {role} cannot be copied: {str(error).splitlines()[0]} Convert the model before it is pruned "
            "or its weights are made by hooks."
        ) from error


def probability(dropout: nn.Module, role: str) -> float:
    """The probability of a dropout of torch; raises `ModelError` for another module."""
    if type(dropout) is nn.Identity:
        return 0.0
    return checked(dropout, nn.Dropout, role).p
