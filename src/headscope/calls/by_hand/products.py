"""A product of two tensors, as einsum writes it: which axes are shared, summed over, or of one factor alone."""

from __future__ import annotations

import string
from typing import Any, NamedTuple

from torch import Tensor, nn

from headscope.compat.torch import base_of

# The places of the two factors among the arguments, and their names.
FACTORS = {
    **dict.fromkeys(("matmul", "__matmul__", "__rmatmul__"), ((0, "input"), (1, "other"))),
    "mm": ((0, "input"), (1, "mat2")),
    "bmm": ((0, "input"), (1, "mat2")),
    "baddbmm": ((1, "batch1"), (2, "batch2")),
    "addmm": ((1, "mat1"), (2, "mat2")),
}
PRODUCTS = frozenset({*FACTORS, "einsum"})


class Product(NamedTuple):
    """Two factors, the letters of their axes and of the axes of the output, and the number it was multiplied with."""

    left: Tensor
    right: Tensor
    letters: tuple[str, str, str]
    factor: float = 1.0


class Roles(NamedTuple):
    """The axes of a product, seen from one factor: shared by all three, summed over, its own, the other's own."""

    batch: str
    summed: str
    own: str
    others: str


def product_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Product | None:
    """The product that a call of a function named in `PRODUCTS` computes; None for what is no product of two."""
    if name == "einsum":
        return of_einsum(*args) if args and not kwargs else None
    left, right = (kwargs.get(key, args[place] if place < len(args) else None) for place, key in FACTORS[name])
    if right is None:
        right = kwargs.get("tensor2")
    if name == "__rmatmul__":
        left, right = right, left
    if not isinstance(left, Tensor) or not isinstance(right, Tensor) or min(left.ndim, right.ndim) < 2:
        return None
    batch = max(left.ndim, right.ndim) - 2
    first, row, summed, column = string.ascii_letters[:batch], "W", "X", "Y"
    letters = (
        first[batch + 2 - left.ndim :] + row + summed,
        first[batch + 2 - right.ndim :] + summed + column,
        first + row + column,
    )
    return Product(left, right, letters, float(kwargs.get("alpha", 1.0)))


def of_einsum(equation: Any, *operands: Any) -> Product | None:
    """The product of an einsum of two tensors with every letter once in each."""
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) != 2 or not all(isinstance(x, Tensor) for x in operands):
        return None
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    free = [letter for letter in string.ascii_uppercase if letter not in equation]
    dots = [x.ndim - len(term.replace("...", "")) for x, term in zip(operands, terms, strict=True)]
    every = "".join(free[: max(dots)])
    left, right = (term.replace("...", every[len(every) - count :]) for term, count in zip(terms, dots, strict=True))
    if not arrow:
        letters = left + right
        output = "..." * ("..." in inputs) + "".join(
            sorted(c for c in set(letters) if letters.count(c) == 1 and c not in every)
        )
    output = output.replace("...", every)
    if any(len(set(term)) != len(term) for term in (left, right, output)):
        return None
    return Product(operands[0], operands[1], (left, right, output))


def roles(product: Product, side: int) -> Roles | None:
    """What the axes are for factor `side`; None where a letter of one factor is summed away by itself."""
    mine, theirs, output = product.letters[side], product.letters[1 - side], product.letters[2]
    found = Roles(
        "".join(c for c in mine if c in theirs and c in output),
        "".join(c for c in mine if c in theirs and c not in output),
        "".join(c for c in mine if c not in theirs and c in output),
        "".join(c for c in theirs if c not in mine and c in output),
    )
    kept = len(found.batch) + len(found.summed)
    return found if kept + len(found.own) == len(mine) and kept + len(found.others) == len(theirs) else None


def plane(product: Product) -> tuple[str, str] | None:
    """The letters of the rows and the columns of a product: of the axes that one factor has alone, the last."""
    left, right = roles(product, 0), roles(product, 1)
    if not left or not right or not left.summed or not left.own or not right.own:
        return None
    output = product.letters[2]
    return max(left.own, key=output.index), max(right.own, key=output.index)


def sizes(product: Product) -> dict[str, int]:
    """The size of every letter; an axis of size 1 is broadcast."""
    found: dict[str, int] = {}
    for x, letters in zip((product.left, product.right), product.letters, strict=False):
        for letter, size in zip(letters, x.shape, strict=True):
            found[letter] = size if found.get(letter, 1) == 1 else found[letter]
    return found


def arranged(x: Tensor, letters: str, order: str) -> Tensor:
    """A tensor with its axes in some order; those that it does not have are of size 1."""
    x = x.permute([letters.index(letter) for letter in order if letter in letters])
    for axis, letter in enumerate(order):
        x = x if letter in letters else x.unsqueeze(axis)
    return x


def from_parameter(x: Tensor) -> bool:
    """Whether a tensor is a parameter or a view of one."""
    return isinstance(x, nn.Parameter) or isinstance(base_of(x), nn.Parameter)
