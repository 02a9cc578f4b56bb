"""Derivatives of the gradients that a kernel computes: from the formula written out, and only where they are asked for.

The kernels of torch and of the tiles give first derivatives. Their results pass through here when autograd records the
backward itself (`create_graph=True`): nothing is computed then, and the whole matrix is built once somebody
differentiates again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# Values and lse from (q, k, v, bias, sinks), written out.
Formula = Callable[..., tuple[Tensor, Tensor]]


def gradients(
    formula: Formula, inputs: Sequence[Tensor | None], grad: Tensor | None, grad_lse: Tensor | None
) -> list[Tensor | None]:
    """Gradients of the formula's inputs, themselves differentiable, for those of values and lse."""
    with torch.enable_grad():
        own = [source(x, again=True) for x in inputs]
        values, lse = formula(*own)
        lse = lse.masked_fill(lse.isneginf(), 0.0)
        return differentiate([values, lse], own, [grad, grad_lse], again=True)


def source(x: Tensor | None, *, again: bool) -> Tensor | None:
    """A tensor to differentiate by: part of its graph where that is to be followed again, else on its own."""
    # An alias: the same tensor given as two inputs has two gradients.
    return None if x is None else x.view_as(x) if again and x.requires_grad else x.detach().requires_grad_()


def differentiate(
    results: Sequence[Tensor | None], sources: Sequence[Tensor | None], grads: Sequence[Tensor | None], *, again: bool
) -> list[Tensor | None]:
    """Gradients of the sources that exist, for those of the results that have one."""
    pairs = [(y, g) for y, g in zip(results, grads, strict=True) if y is not None and g is not None]
    wanted = [x for x in sources if x is not None]
    found: Sequence[Tensor | None] = [None] * len(wanted)
    if pairs:
        outputs, outer = zip(*pairs, strict=True)
        found = torch.autograd.grad(outputs, wanted, outer, create_graph=again, allow_unused=True)
    gradients = iter(torch.zeros_like(x) if g is None else g for g, x in zip(found, wanted, strict=True))
    return [None if x is None else next(gradients) for x in sources]


class FirstDerivative(torch.autograd.Function):
    """The gradients that a kernel computed, with the derivatives that the formula has."""

    @staticmethod
    def forward(ctx: Any, formula: Formula, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        """The gradients as they are. `tensors` are `count` inputs, the outer gradients of values and lse, and them."""
        ctx.formula, ctx.count = formula, count
        ctx.save_for_backward(*tensors[: count + 2])
        ctx.set_materialize_grads(False)
        return tuple(None if x is None else x.view_as(x) for x in tensors[count + 2 :])

    @staticmethod
    def backward(ctx: Any, *outer: Tensor | None) -> tuple[Tensor | None, ...]:
        """The formula's gradients, differentiated."""
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            sources = [source(x, again=again) for x in ctx.saved_tensors]
            first = gradients(ctx.formula, sources[: ctx.count], *sources[ctx.count :])
            found = differentiate(first, sources, outer, again=again)
        return (None, None, *found, *(None for _ in outer))


def with_derivatives(
    formula: Formula,
    inputs: Sequence[Tensor | None],
    grad: Tensor | None,
    grad_lse: Tensor | None,
    results: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """The gradients of `inputs` that a kernel computed, as functions of the inputs and of the outer gradients."""
    tensors = (*inputs, grad, grad_lse, *results)
    made: tuple[Tensor | None, ...] = FirstDerivative.apply(formula, len(inputs), *tensors)  # type: ignore[no-untyped-call]
    return made
