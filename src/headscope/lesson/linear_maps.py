"""The linear maps around an attention call, found by their numbers: those that made q, k, v, and W_O after it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from headscope.recording.layer import Layer


class LinearCall(NamedTuple):
    """One call of a linear map.

    Shapes:
        x `(n, in)`, y `(n, out)`: the first batch item.

    Attributes:
        path: of the module, as in `model.named_modules()`.
    """

    path: str
    module: nn.Module
    x: Tensor
    y: Tensor


class Source(NamedTuple):
    """The linear map that one of q, k and v comes from.

    Attributes:
        exact: whether its output is the very q, k or v; else the model changes it before attention (rotary positions,
            a norm, a factor).
        packed: whether others of q, k and v come out of the same map.
    """

    call: LinearCall
    exact: bool
    packed: bool


class LinearCalls:
    """A block in which every call of a linear map in or around a module is kept, with what went in and came out."""

    def __init__(self, model: nn.Module, path: str) -> None:
        modules = dict(model.named_modules())
        places = [place for place in (path, path.rpartition(".")[0]) if place in modules]
        self.found = {
            ".".join(filter(None, (place, name))): module
            for place in places
            for name, module in modules[place].named_modules()
            if is_linear(module)
        }
        self.calls: list[LinearCall] = []

    def __enter__(self) -> LinearCalls:
        self.handles = [
            module.register_forward_hook(self.hook(path), with_kwargs=True) for path, module in self.found.items()
        ]
        return self

    def hook(self, path: str) -> Any:
        """Keeps one call."""

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: object) -> None:
            x = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
            if isinstance(y, Tensor) and x is not None and x.ndim == y.ndim == 3:
                self.calls.append(LinearCall(path, module, x.detach()[0].clone(), y.detach()[0].clone()))

        return keep

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a matrix: `nn.Linear`, its kin, or the `Conv1D` of transformers; an embedding is none."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(module, nn.Embedding)


def sources(calls: list[LinearCall], layer: Layer) -> dict[str, Source]:
    """Where q, k and v of a layer come from, as far as the numbers and then the names of the maps say."""
    assert layer.v is not None
    together = {"q": merged(layer.q[0]), "k": merged(layer.k[0]), "v": merged(layer.v[0])}
    found: dict[str, Source] = {}
    for letter, x in together.items():
        call = next((call for call in calls if slice_of(call.y, x)), None)
        if call is not None:
            found[letter] = Source(call, exact=True, packed=call.y.shape[1] > x.shape[1])
    for letter in [letter for letter in "qk" if letter not in found]:
        guess = changed(calls, letter, together[letter], found)
        if guess is not None:
            found[letter] = guess
    return {letter: found[letter] for letter in "qkv" if letter in found}


def changed(calls: list[LinearCall], letter: str, x: Tensor, found: dict[str, Source]) -> Source | None:
    """The map whose output the model turns into q or k: the packed one of v, or one beside it of that name and size."""
    if (value := found.get("v")) is None:
        return None
    if value.packed:
        return Source(value.call, exact=False, packed=True)
    beside = [
        call
        for call in calls
        if call.y.shape == x.shape and letter in call.path.rpartition(".")[2] and torch.equal(call.x, value.call.x)
    ]
    return Source(beside[0], exact=False, packed=False) if len(beside) == 1 else None


def slice_of(y: Tensor, x: Tensor) -> bool:
    """Whether some columns of y, next to each other, are x; the first of x may begin anywhere."""
    width = x.shape[1]
    if len(y) != len(x) or y.shape[1] < width:
        return False
    starts = (y[0, : y.shape[1] - width + 1] == x[0, 0]).nonzero().flatten().tolist()
    return any(torch.equal(y[:, start : start + width], x) for start in starts)


def merged(x: Tensor) -> Tensor:
    """`(h, n, d)` -> `(n, h·d)`: heads side by side."""
    return x.transpose(0, 1).reshape(x.shape[1], -1)


def output_map(calls: list[LinearCall], values: Tensor) -> LinearCall | None:
    """The map whose input are the merged heads, `(n, h·e)`, to the rounding of their dtype."""
    for call in calls:
        if call.x.shape == values.shape and torch.allclose(
            call.x.to(values.dtype), values, rtol=1e-2, atol=1e-2 * values.abs().max().item()
        ):
            return call
    return None
