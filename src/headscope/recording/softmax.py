"""Attention that a model writes out by hand: a product, a softmax of it over its last axis, and a product with that.

Nothing else has all three: routers, gates and classifiers take the softmax of a linear layer's output, or multiply with
nothing afterwards. What stands between (scale, mask, bias, dtype, dropout) is followed by the shape of its result.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from headscope.recording.calls import Call
from headscope.recording.interface import from_weights

PRODUCTS = frozenset({"matmul", "__matmul__", "__rmatmul__", "bmm", "baddbmm", "einsum"})
SOFTMAX = frozenset({"softmax", "_softmax"})
# What turns weights into something that is no longer a row for each query.
TURNS = frozenset({"transpose", "permute", "swapaxes", "swapdims", "movedim", "t", "adjoint", "__get__"})


class Found(NamedTuple):
    """What is known of a tensor: it came from weights (then which), or else it is scores."""

    weights: Tensor | None


class Pair(NamedTuple):
    """Weights, and the values that they were multiplied with: `(b, h, q, k)` and `(b, h, k, e)`, or without `b`."""

    weights: Tensor
    values: Tensor


class Follower:
    """Follows the tensors of one thread from a product to the next; nothing is kept alive but weights still in use."""

    def __init__(self) -> None:
        self.known: MutableMapping[Tensor, Found] = WeakIdKeyDictionary()

    def before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep weights as they are when a function is about to write into them (dropout in place)."""
        name = getattr(func, "__name__", "")
        if not args or not isinstance(args[0], Tensor):
            return
        if (name[-1:] == "_" and name[-2:] != "__") or name in ("dropout", "__setitem__") or kwargs.get("inplace"):
            found = self.known.get(args[0])
            if found is not None and found.weights is not None:
                self.known[args[0]] = Found(found.weights.clone())

    def after(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Pair | None:
        """What a function completes, when it is the second product."""
        name = getattr(func, "__name__", "")
        if name in PRODUCTS:
            return self.product(name, args, kwargs, output)
        if not self.known or not isinstance(output, Tensor):
            return None
        given = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x in self.known), None)
        if given is None:
            return None
        found = self.known[given]
        if name in SOFTMAX and found.weights is None:
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if dim in (-1, output.ndim - 1):
                self.known[output] = Found(output.detach())
        elif found.weights is not None and name in TURNS:
            return None
        elif output.shape[-1] == given.shape[-1] and output.numel() >= given.numel():
            self.known[output] = found
        return None

    def product(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Pair | None:
        """A product: the second, when one of its factors came from weights; else perhaps the first."""
        flat = [x for one in (*args, *kwargs.values()) for x in (one if isinstance(one, list | tuple) else [one])]
        factors = [x for x in flat if isinstance(x, Tensor)][-2:]  # baddbmm adds its first tensor to the product
        if len(factors) < 2 or not isinstance(output, Tensor):
            return None
        for position, x in enumerate(factors):
            found = self.known.get(x)
            if found is not None and found.weights is not None:
                equation = args[0] if name == "einsum" else ""
                return paired(equation, position, found.weights, factors[1 - position])
        if output.ndim in (3, 4) and all(x.ndim >= 3 and not isinstance(x, nn.Parameter) for x in factors):
            self.known[output] = Found(None)
        return None


def paired(equation: str, position: int, weights: Tensor, v: Tensor) -> Pair | None:
    """Weights and values with the same axes; None where the second factor has no place for values."""
    letters = equation.replace(" ", "").split("->")[0].split(",")
    if len(letters) == 2 and "." not in equation:
        mine, theirs = letters[position], letters[1 - position]
        order = [*mine[:-2], mine[-1], *(letter for letter in theirs if letter not in mine)]
        if len(order) != len(mine) or not set(theirs) <= set(order):
            return None
        v = v.permute([theirs.index(letter) for letter in order if letter in theirs])
        for axis, letter in enumerate(order):
            v = v if letter in theirs else v.unsqueeze(axis)
    elif position:
        return None
    if v.ndim > weights.ndim or v.shape[-2] != weights.shape[-1]:
        return None
    return Pair(weights, v.detach().expand(*weights.shape[:-2], *v.shape[-2:]))


def call_of(pair: Pair, heads: int | None) -> Call | None:
    """The call with these weights. Of three axes the first is the batch with its heads, which the module must tell."""
    if pair.weights.ndim == 4:
        return from_weights(*pair)
    if not heads or len(pair.weights) % heads:
        return None
    return from_weights(*(x.reshape(-1, heads, *x.shape[1:]) for x in pair))
