"""The parts of a model beside attention, as steps; and who was called with what."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from headscope.nn.embedding import Embedding, TiedOutput
from headscope.nn.explanation import Step
from headscope.nn.feed_forward import FeedForward, GatedFeedForward
from headscope.nn.multihead import MultiheadAttention
from headscope.nn.residual import PostNorm, PreNorm
from headscope.shapes import shape


class CallArguments(NamedTuple):
    """What a module was called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Calls:
    """A block in which the calls of a model's parts are listed, in the order in which they end; in evaluation mode."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.calls: list[tuple[str, nn.Module, CallArguments, Tensor]] = []
        self.counted: set[int] = set()

    def __enter__(self) -> Calls:
        self.training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        self.handles = [
            module.register_forward_hook(self.hook(name or type(module).__name__), with_kwargs=True)
            for name, module in outermost(self.model)
        ]
        return self

    def hook(self, name: str) -> Callable[..., None]:
        """Writes down one call."""

        def written(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> None:
            self.calls.append((name, module, CallArguments(args, kwargs), result))

        return written

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
        for module in self.training:
            module.training = True


def outermost(model: nn.Module, name: str = "") -> list[tuple[str, nn.Module]]:
    """The parts that are steps by themselves; what is inside of them is explained by them."""
    if isinstance(model, (*FORMULAS, MultiheadAttention)):
        return [(name, model)]
    found = [
        part for child, module in model.named_children() for part in outermost(module, f"{name}.{child}".strip("."))
    ]
    return [*found, (name, model)] if isinstance(model, PreNorm | PostNorm) else found


def part_step(name: str, part: nn.Module, result: Tensor, counted: set[int]) -> Step:
    """The step of a part that is not attention; parameters that are shared count where they come first."""
    if isinstance(part, PreNorm | PostNorm):
        formula = "x + part(norm(x))" if isinstance(part, PreNorm) else "x + part(x), in the norm"
        return Step(f"{name}: residual", formula, shape(result), 0, result.numel(), nbytes(result))
    own = {id(p): p.numel() for p in part.parameters() if id(p) not in counted}
    counted.update(own)
    positions = result.numel() // result.shape[-1]
    flops = sum(2 * positions * m.in_features * m.out_features for m in part.modules() if isinstance(m, nn.Linear))
    if isinstance(part, TiedOutput):
        flops = 2 * result.numel() * part.tokens.embedding_dim
    if isinstance(part, nn.LayerNorm | nn.RMSNorm):
        # Per number: mean and variance, subtract, divide, multiply, add; no mean for the second.
        flops = (8 if isinstance(part, nn.LayerNorm) else 4) * result.numel()
    formula = next(text(part) for kind, text in FORMULAS.items() if isinstance(part, kind))
    return Step(name, formula, shape(result), sum(own.values()), flops, nbytes(result))


def embedding(part: nn.Module) -> str:
    """The formula of an embedding."""
    assert isinstance(part, Embedding)
    scale = "" if part.scale == 1 else f"{part.scale:g} · "
    return f"{scale}E[ids]" + ("" if part.positions is None else " + P[positions]")


def feed_forward(part: nn.Module) -> str:
    """The formula of a feed-forward."""
    assert isinstance(part, FeedForward)
    f = getattr(part.activation, "func", part.activation)
    name = getattr(f, "__name__", type(f).__name__)
    up = affine("x", "up", part.up)
    inner = (
        f"{name}({affine('x', 'gate', part.gate)}) · ({up})" if isinstance(part, GatedFeedForward) else f"{name}({up})"
    )
    return affine(f"[{inner}]", "down", part.down)


# The first that fits is taken.
FORMULAS: dict[type[nn.Module], Callable[[nn.Module], str]] = {
    Embedding: embedding,
    FeedForward: feed_forward,
    nn.LayerNorm: lambda _: "(x − mean) / deviation · γ + β",
    nn.RMSNorm: lambda _: "x / root mean square · γ",
    TiedOutput: lambda _: "x Eᵀ",
    nn.Linear: lambda part: affine("x", "out", part),
}


def made(
    name: str,
    formula: str,
    result: Tensor,
    source: Tensor | None = None,
    *,
    parameters: nn.Module | Tensor | None = None,
    flops: int | None = None,
) -> Step:
    """A step, with what can be read off its result."""
    view = source is not None and result.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()
    learned = 0
    if isinstance(parameters, nn.Module):
        learned = sum(p.numel() for p in parameters.parameters())
    elif parameters is not None:
        learned = parameters.numel()
    if flops is None:
        flops = 2 * result.numel() * parameters.in_features if isinstance(parameters, nn.Linear) else 0
    return Step(name, formula, shape(result), learned, flops, 0 if view else result.numel() * result.element_size())


def affine(source: str, name: str, linear: nn.Module) -> str:
    """The formula of a linear map."""
    return f"{source} W_{name}ᵀ" + (f" + b_{name}" if any(n == "bias" for n, _ in linear.named_parameters()) else "")


def score_formula(d: int, scale: float | None, softcap: float | None, parts: Sequence[str] = ()) -> str:
    """How scores are made of q and k: the scale, the softcap, and what is added.

    Example:
        >>> score_formula(64, None, None, ["mask"]), score_formula(4, 1.0, 50.0)
        ('q kᵀ / √64 + mask', '50.0 · tanh(1 · q kᵀ / 50.0)')
    """
    usual = scale is None or math.isclose(scale, d**-0.5)
    product = f"q kᵀ / √{d}" if usual else f"{scale:g} · q kᵀ"
    product = product if softcap is None else f"{softcap} · tanh({product} / {softcap})"
    return " + ".join((product, *parts))


def nbytes(t: Tensor) -> int:
    """Bytes of the numbers of a tensor."""
    return t.numel() * t.element_size()
