"""What is known of a tensor on the way from a product to the next, and what each function of torch makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from headscope.calls.by_hand.products import Product, arranged, plane, sizes

SOFTMAX = frozenset({"softmax", "_softmax"})
LAYOUT = frozenset({
    "view", "reshape", "view_as", "reshape_as", "transpose", "permute", "swapaxes", "swapdims", "movedim",
    "moveaxis", "t", "adjoint", "__get__", "squeeze", "unsqueeze", "flatten", "unflatten", "expand", "expand_as",
    "__getitem__", "select", "narrow", "chunk", "split", "split_with_sizes", "tensor_split", "unbind", "einsum",
    "broadcast_to",
})  # fmt: skip
# Layouts that copy where they must; a copy of weights without the model's own `contiguous` may have to.
VIEWS = frozenset({"view", "view_as", "flatten", "unflatten"})
CASTS = frozenset({
    "to", "float", "double", "half", "bfloat16", "type", "type_as", "clone", "contiguous", "detach", "alias", "cpu",
    "cuda", "requires_grad_",
})  # fmt: skip
ADDS = frozenset({
    "add", "__add__", "__radd__", "__iadd__", "add_", "sub", "__sub__", "__isub__", "sub_", "subtract",
    "masked_fill", "masked_fill_", "where", "__setitem__", "index_fill", "index_fill_", "masked_scatter", "tril",
    "triu", "tril_", "triu_",
})  # fmt: skip
TIMES = frozenset({"mul", "__mul__", "__rmul__", "__imul__", "mul_", "multiply", "multiply_"})
DIVIDES = frozenset({"div", "__truediv__", "__itruediv__", "div_", "true_divide", "divide", "divide_"})
# What changes scores in other ways: then they are no longer a product with something added.
OTHERS = frozenset({
    "dropout", "dropout_", "clamp", "clamp_", "clamp_min", "clamp_max", "clip", "maximum", "minimum", "max", "min",
    "tanh", "nan_to_num", "nan_to_num_", "relu", "log_softmax",
})  # fmt: skip
WEIGHTS_STAY = TIMES | DIVIDES | frozenset({
    "dropout", "dropout_", "feature_dropout", "alpha_dropout", "masked_fill", "masked_fill_", "where", "nan_to_num",
    "nan_to_num_", "__setitem__",
})  # fmt: skip
IN_PLACE = frozenset({"__setitem__", "__imul__", "__itruediv__", "__iadd__", "__isub__"})


@dataclass(frozen=True)
class Scores:
    """A tensor that came from a product.

    Attributes:
        ramp: as the tensor, without numbers: its stride is 1 along the columns of the product, their number along its
            rows, and 0 along every other axis; None where that is lost.
        scale: what the product was multiplied with.
        additive: whether it was only scaled, masked and added to, and not changed in other ways.
        raised: whether it is the exponential of such scores.
    """

    product: Product
    ramp: Tensor | None
    scale: float
    additive: bool = True
    raised: bool = False


@dataclass
class Origin:
    """The softmax that weights came from.

    Attributes:
        scores: what it was taken of, and its version then.
        rows, keys: the axes of queries and keys.
        taken: the parts that have been multiplied with values already.
    """

    known: Scores
    scores: Tensor
    version: int | None
    rows: int
    keys: int
    taken: set[tuple[Any, ...]] = field(default_factory=set)


@dataclass(frozen=True)
class Weights:
    """A tensor that came from a softmax of scores: `clean` are the weights before dropout, in its layout.

    Attributes:
        rows, keys: the strides in `ramp` of the axes of queries and keys.
    """

    origin: Origin
    clean: Tensor
    ramp: Tensor
    rows: int
    keys: int
    changed: bool = False


def ramp_of(product: Product) -> Tensor | None:
    """A tensor as large as a product, and without numbers: see `Scores`. None for what has no rows or no columns."""
    letters = plane(product)
    if letters is None:
        return None
    size, output = sizes(product), product.letters[2]
    flat = torch.empty(size[letters[0]], size[letters[1]], device="meta")
    return arranged(flat, letters[0] + letters[1], output).expand([size[letter] for letter in output])


def columns_of(product: Product) -> int:
    """How many columns a product has, which is the stride of its rows in the ramp."""
    letters = plane(product)
    assert letters is not None
    return sizes(product)[letters[1]]


def laid_out(
    func: Any,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    source: Tensor,
    found: Scores | Weights,
    output: Any,
) -> list[tuple[Tensor, Scores | Weights]]:
    """The outputs of a change of layout, with what is known of each: the same is done to what is known of the input."""

    def same(x: Tensor) -> list[Tensor]:
        mine = tuple(x if one is source else one for one in args)
        theirs = {key: x if one is source else one for key, one in kwargs.items()}
        try:
            made = func(*mine, **theirs)
        except RuntimeError:
            if name not in VIEWS:
                raise
            made = x.reshape(output.shape)
        return list(made) if isinstance(made, list | tuple) else [made]

    outputs = list(output) if isinstance(output, list | tuple) else [output]
    outputs = [x for x in outputs if isinstance(x, Tensor) and x.dtype == source.dtype]
    if not outputs or found.ramp is None:
        return []
    ramps = same(found.ramp)
    if isinstance(found, Weights):
        cleans = same(found.clean)
        return [
            (x, replace(found, clean=clean, ramp=one)) for x, clean, one in zip(outputs, cleans, ramps, strict=True)
        ]
    return [(x, replace(found, ramp=one)) for x, one in zip(outputs, ramps, strict=True)]


def rescaled(
    found: Scores, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], source: Tensor, output: Tensor
) -> Scores | None:
    """What scores are after a function of each of them; None where that is no longer known."""
    if name in CASTS or name in ADDS:
        changed = found
    elif name in TIMES or name in DIVIDES:
        others = [x for x in (*args, *kwargs.values()) if x is not source]
        number = others[0] if len(others) == 1 else None
        if name in DIVIDES and (not args or args[0] is not source):
            return None
        if isinstance(number, Tensor):
            number = float(number.detach()) if number.ndim == 0 else None
        if isinstance(number, bool) or not isinstance(number, int | float) or not number:
            changed = replace(found, additive=False)
        else:
            changed = replace(found, scale=found.scale * number if name in TIMES else found.scale / number)
    elif name in OTHERS:
        changed = replace(found, additive=False)
    else:
        return None
    if output.shape == source.shape:
        return changed
    try:
        return replace(changed, ramp=None if changed.ramp is None else changed.ramp.expand(output.shape))
    except RuntimeError:
        return None


def sums_to_one(x: Tensor) -> bool:
    """Whether the numbers along the last axis sum to one everywhere, or are all zero."""
    total = x.detach().sum(-1)
    return bool((((total - 1).abs() < 1e-3) | (total == 0)).all())
