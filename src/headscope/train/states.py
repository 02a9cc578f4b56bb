"""A state of any make as JSON, with its tensors beside it: and back, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from typing import Any

from torch import Tensor

from headscope.errors import TrainingError

# JSON knows neither tensors, nor tuples, nor keys that are numbers, nor infinity: these are objects with one name.
TENSOR, TUPLE, DICT, FLOAT = "tensor", "tuple", "dict", "float"


def pack(x: Any, name: str, tensors: MutableMapping[str, Tensor]) -> Any:
    """What JSON can hold of a state; its tensors are put into `tensors`, under names that begin with `name`.

    Raises:
        TrainingError: something that is neither a tensor nor a number, a text, a list, a tuple or a dict of these.

    Example:
        >>> import torch
        >>> tensors = {}
        >>> packed = pack({0: {"betas": (0.9, 0.99), "mean": torch.zeros(2)}}, "adam", tensors)
        >>> list(tensors), unpack(packed, tensors)
        (['adam.0.mean'], {0: {'betas': (0.9, 0.99), 'mean': tensor([0., 0.])}})
    """
    if isinstance(x, Tensor):
        tensors[name] = x
        return {TENSOR: name}
    if isinstance(x, Mapping) and all(isinstance(key, str | int) for key in x):
        return {DICT: [[key, pack(value, f"{name}.{key}", tensors)] for key, value in x.items()]}
    if type(x) in (list, tuple):
        packed = [pack(value, f"{name}.{i}", tensors) for i, value in enumerate(x)]
        return {TUPLE: packed} if isinstance(x, tuple) else packed
    if type(x) is float and not math.isfinite(x):
        return {FLOAT: str(x)}
    if x is None or type(x) in (bool, int, float, str):
        return x
    raise TrainingError(
        f"checkpoint: {name} is a {type(x).__name__}; a checkpoint holds tensors, numbers, texts, and lists, tuples "
        "and dicts of these. Leave it out, or give it in such a form."
    )


def unpack(x: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that was packed.

    Raises:
        KeyError, ValueError, TypeError: it is no such thing.
    """
    if isinstance(x, list):
        return [unpack(value, tensors) for value in x]
    if not isinstance(x, dict):
        return x
    ((kind, content),) = x.items()
    if kind == TENSOR:
        return tensors[content]
    if kind == TUPLE:
        return tuple(unpack(value, tensors) for value in content)
    if kind == FLOAT:
        return float(content)
    return {key: unpack(value, tensors) for key, value in {DICT: content}[kind]}
