"""What something is, by its content: SHA-256 of files, of tensors and of plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

# Bytes that are hashed between two questions whether to go on.
BLOCK = 2**22


@overload
def digest_of_file(file: Path) -> str: ...
@overload
def digest_of_file(file: Path, stopped: Callable[[], bool]) -> str | None: ...
def digest_of_file(file: Path, stopped: Callable[[], bool] = lambda: False) -> str | None:
    """The SHA-256 of a file; None where it was stopped, which is asked between two blocks."""
    found, block = hashlib.sha256(), bytearray(BLOCK)
    with file.open("rb", buffering=0) as data:
        while count := data.readinto(block):
            if stopped():
                return None
            found.update(memoryview(block)[:count])
    return found.hexdigest()


def digest_of_values(values: Any) -> str:
    """The SHA-256 of what JSON can hold, whatever the order of its names.

    Example:
        >>> digest_of_values({"a": 1, "b": [2]}) == digest_of_values({"b": [2], "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def digest_of_tensors(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """The SHA-256 of tensors: their names, dtypes, shapes and numbers."""
    found = hashlib.sha256()
    for name, x in sorted(dict(tensors).items()):
        found.update(f"{name}\0{x.dtype}\0{tuple(x.shape)}\0".encode(errors="surrogatepass"))
        found.update(bytes_of(x))
    return found.hexdigest()


def bytes_of(x: Tensor) -> memoryview:
    """The numbers of a tensor as they lie in memory, in the order of its axes."""
    flat = x.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    numbers: Any = flat.view(torch.uint8).numpy()
    return memoryview(numbers)


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names under which two descriptions say different things, in the order of the second.

    Example:
        >>> differences({"weights": "a", "text": "b"}, {"weights": "c", "text": "b", "seed": 0})
        ['weights', 'seed']
    """
    return [name for name in [*now, *(name for name in was if name not in now)] if was.get(name) != now.get(name)]
