"""Attention that a model writes out by hand: a product, a softmax of it over its last axis, and a product with that.

Nothing else has all three: routers, gates and classifiers take the softmax of a linear layer's output, or multiply with
nothing afterwards. What stands between (scale, mask, bias, dtype, dropout) is followed by the shape of its result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, MutableMapping
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from headscope.attention.masks.tensors import Reader
from headscope.calls import blocks
from headscope.calls.call import Call, from_weights
from headscope.calls.sites.site import Arguments, Site

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


class ByHand(Site):
    """A softmax of a product, multiplied with values: one call, whose output is that of the second product."""

    name = "attention written out by hand"

    def arguments(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Which function the second product is, and its arguments."""
        return {"func": getattr(func, "__name__", ""), "args": args, "kwargs": kwargs}

    def read(self, reader: Reader, heads: int | None, given: Arguments) -> Call | None:
        """See `call_of`."""
        return call_of(given["pair"], heads)

    def refusal(self, output: Any, given: Arguments) -> str | None:
        """Only where the output has the axes of the weights is it known which of its numbers are whose."""
        weights, v = given["pair"]
        if given["func"] == "einsum":
            return "its product is an einsum"
        if output.ndim != weights.ndim or output.shape[:-1] != weights.shape[:-1] or output.shape[-1] != v.shape[-1]:
            return f"its output is {tuple(output.shape)} and its weights are {tuple(weights.shape)}"
        if weights.ndim == 3 and not blocks.running_heads():
            return "its batch and heads are one axis, and the module does not say how many heads it has"
        return None

    def values(self, output: Any, given: Arguments, heads: int | None) -> Tensor:
        """The product; of three axes the first is the batch and its heads."""
        values: Tensor = output if output.ndim == 4 else output.reshape(-1, heads or 1, *output.shape[1:])
        return values

    def replace(self, output: Any, values: Tensor, given: Arguments) -> Any:
        """With the axes of the output."""
        return values.reshape(output.shape)


class Follower:
    """Follows the tensors of one thread from a product to the next; nothing is kept alive but weights still in use."""

    def __init__(self) -> None:
        self.known: MutableMapping[Tensor, Found] = WeakIdKeyDictionary()
        self.site = ByHand()

    def around(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function, and capture and edit what it completes."""
        with self._guarded():
            if self.known:
                self.before(func, args, kwargs)
        output = func(*args, **kwargs)
        pair = None
        with self._guarded():
            pair = self.after(func, args, kwargs, output)
        if pair is None or not countable(pair, blocks.running_heads()):
            return output
        given = self.site.arguments(func, args, kwargs) | {"pair": pair}

        def read(reader: Reader, heads: int | None) -> Call | None:
            return self.site.read(reader, heads, given)

        blocks.capture(self.site.name, read)
        return self.site.edit(output, lambda: given, read)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """What cannot be followed is forgotten: following must not break the model, whatever it computes."""
        try:
            yield
        except Exception:  # noqa: BLE001
            self.known.clear()

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


def countable(pair: Pair, heads: int | None) -> bool:
    """Whether it is known which weights belong to which head."""
    return pair.weights.ndim == 4 or bool(heads and len(pair.weights) % heads == 0)


def call_of(pair: Pair, heads: int | None) -> Call | None:
    """The call with these weights. Of three axes the first is the batch with its heads, which the module must tell."""
    if pair.weights.ndim == 4:
        return from_weights(*pair)
    if not countable(pair, heads) or heads is None:
        return None
    return from_weights(*(x.reshape(-1, heads, *x.shape[1:]) for x in pair))
