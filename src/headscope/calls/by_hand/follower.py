"""Attention that a model writes out by hand: a product, a softmax along its keys, and a product that sums over them.

Nothing else has all three: routers and classifiers take the softmax of a linear layer's output or choose among
parameters, or multiply with nothing afterwards. What stands between is followed: what is done to the layout is done to
copies of the tensors as well (views, which cost nothing), and to a tensor without numbers whose strides tell which axis
is that of the queries and which that of the keys.
"""

from __future__ import annotations

import warnings
from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from headscope.calls.by_hand.followed import (
    CASTS,
    DIVIDES,
    IN_PLACE,
    LAYOUT,
    SOFTMAX,
    WEIGHTS_STAY,
    Origin,
    Scores,
    Weights,
    columns_of,
    laid_out,
    ramp_of,
    rescaled,
    sums_to_one,
)
from headscope.calls.by_hand.pairs import Pair, paired
from headscope.calls.by_hand.products import PRODUCTS, Product, from_parameter, product_of
from headscope.compat.torch import version_of, weak_keys


class Follower:
    """Follows the tensors of one thread from a product to the next; nothing is kept alive but weights still in use."""

    def __init__(self) -> None:
        known = weak_keys()
        self.able = known is not None
        self.known: MutableMapping[Tensor, Scores | Weights] = {} if known is None else known

    def before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep weights as they are when a function is about to write into them (dropout in place)."""
        name = getattr(func, "__name__", "")
        if not args or not isinstance(args[0], Tensor):
            return
        inplace = kwargs.get("inplace") or (name in ("dropout", "alpha_dropout") and args[3:4] == (True,))
        if inplace or name in IN_PLACE or (name[-1:] == "_" and name[-2:] != "__"):
            found = self.known.get(args[0])
            if isinstance(found, Weights):
                self.known[args[0]] = replace(found, clean=found.clean.clone(), changed=True)

    def after(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Pair | None:
        """What a function completes, when it is the second product. Never raises: what fails is followed no further."""
        name = getattr(func, "__name__", "")
        if not self.able:
            return None
        try:
            if name in PRODUCTS and isinstance(output, Tensor):
                product = product_of(name, args, kwargs)
                return None if product is None else self.multiplied(product, output)
            if self.known:
                self.followed(func, name, args, kwargs, output)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong here, the model goes on
            self.known.clear()
            warnings.warn(f"record: attention by hand is not followed through {name}: {error}", stacklevel=2)
        return None

    def multiplied(self, product: Product, output: Tensor) -> Pair | None:
        """A product: the second, when one of its factors came from weights; else perhaps the first."""
        for side, x in enumerate((product.left, product.right)):
            found = self.known.get(x)
            if isinstance(found, Weights):
                other = self.known.get((product.right, product.left)[side])
                # A product of weights with weights has no values.
                return None if isinstance(other, Weights) else paired(product, side, found)
        ramp = ramp_of(product)
        if ramp is not None:
            self.known[output] = Scores(product, ramp, product.factor)
        return None

    def followed(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """What a function makes of scores or weights."""
        source = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x in self.known), None)
        if source is None:
            return
        found = self.known[source]
        if name in LAYOUT:
            for made, known in laid_out(func, name, args, kwargs, source, found, output):
                self.known[made] = known
        elif not isinstance(output, Tensor):
            return
        elif isinstance(found, Weights):
            if (name in CASTS or name in WEIGHTS_STAY) and output.shape == source.shape:
                same = name in CASTS or output is source  # dropout in evaluation, or in place, which `before` saw
                self.known[output] = self.known[source] if same else replace(found, changed=True)
        elif name in SOFTMAX:
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            self.normalised(source, found, output, dim)
        elif name == "exp" or (found.raised and name in DIVIDES):
            if sums_to_one(output):
                self.normalised(source, found, output, -1)
            elif name == "exp":
                self.known[output] = replace(found, raised=True, additive=False)
        else:
            changed = None if found.raised else rescaled(found, name, args, kwargs, source, output)
            if changed is not None:
                self.known[output] = changed

    def normalised(self, source: Tensor, found: Scores, output: Tensor, dim: Any) -> None:
        """The softmax of scores: weights, where it is taken along the rows or the columns of the product."""
        if found.ramp is None or not isinstance(dim, int) or source.ndim < 2:
            return
        axis = dim % source.ndim
        strides, columns = found.ramp.stride(), columns_of(found.product)
        single = found.ramp.shape[axis] == 1
        side = 1 if single or strides[axis] == 1 else 0
        if not single and strides[axis] not in (1, columns):
            return
        keys, queries = (1, columns) if side else (columns, 1)
        # What is chosen among parameters is a route, not a place in the input.
        if from_parameter((found.product.left, found.product.right)[side]):
            return
        others = [a for a in range(source.ndim) if a != axis]
        rows = next((a for a in others if found.ramp.shape[a] > 1 and strides[a] == queries), others[-1])
        origin = Origin(found, source.detach(), version_of(source), rows, axis)
        self.known[output] = Weights(origin, output.detach(), found.ramp, queries, keys)
