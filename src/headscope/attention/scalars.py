"""Numbers among the arguments of a call: factors such as the scale, and counts such as those of a window."""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any

import torch
from torch import Tensor

from headscope.attention.known import jit_tracing, known
from headscope.errors import MaskError, ShapeError
from headscope.shapes import shape


def factor(where: str, name: str, given: Any) -> float:
    """A finite number, as torch's kernels take it; a tensor of one element is read.

    Raises:
        ShapeError: not a number, or none that is finite; a tensor that needs a gradient, or whose number is not known.
    """
    if isinstance(given, Tensor):
        if given.numel() != 1 or given.requires_grad or not (known(given) or jit_tracing()):
            learned = " A learned one is a factor of the queries: attend(q * scale, k, v, scale=1.0)."
            raise ShapeError(
                f"{where}: {name} is a tensor {shape(given)}, and kernels take a number, which has no gradient; give a "
                f"float.{learned if name == 'scale' else ''}"
            )
        given = given.item()
    if torch.compiler.is_compiling() or isinstance(given, torch.SymFloat | torch.SymInt):
        # A number of a graph: a question would fix the graph to one answer.
        found: float = given
        return found
    if not isinstance(given, numbers.Real) or not math.isfinite(given):
        raise ShapeError(f"{where}: {name}={given!r}; give a finite number.")
    return float(given)


def count(where: str, name: str, given: Any) -> int:
    """A whole number, of Python, of numpy or of a graph.

    Raises:
        MaskError: something else.
    """
    if torch.compiler.is_compiling() or isinstance(given, torch.SymInt):
        found: int = given
        return found
    try:
        whole = None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        whole = None
    if whole is None:
        raise MaskError(f"{where}: {name}={given!r} is a {type(given).__name__}; give a whole number.")
    return whole
