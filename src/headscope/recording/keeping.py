"""Tensors of a running model, kept so that nothing the model does to them afterwards can change what was recorded.

A copy is always right, and costs fresh memory and the time to fill it. Most q, k and v are garbage as soon as
their module has returned: then the recording is their only owner, nobody can write to them any more, and they are kept
as they are. Whether that is so is asked of the storage's reference count when the module has returned. Until then, and
before any function that writes in place, they count as the model's own, and are copied where it still holds them: in a
cache, in a buffer, for a backward pass, or as a view of something larger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headscope.errors import ModelError, OverBudget
from headscope.recording.layer import Layer

# A view is kept only when most of the memory behind it was recorded.
SHARE = 0.75
WRITES = frozenset({"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__set__"})

count_owners: Callable[[int], int] | None = getattr(torch._C, "_storage_Use_Count", None)


class Held(NamedTuple):
    """A tensor that is still the model's, too."""

    layer: Layer
    field: str
    version: int


class Keeper:
    """Keeps tensors for one recording, in the dtype and on the device that were asked for."""

    def __init__(self, dtype: torch.dtype | None, device: torch.device | None, budget: int | None = None) -> None:
        self.dtype, self.device, self.budget = dtype, device, budget
        self.spent = 0
        self.held: list[Held] = []

    def keep(self, layer: Layer, field: str, x: Tensor, *, whole: bool) -> None:
        """Put a tensor into a field of a layer; `whole` says that it is as the model has it, with nothing selected."""
        x = x.detach()
        if not whole or count_owners is None or x.is_inference() or self._converts(x) or 0 in x.stride():
            setattr(layer, field, self.copy(x))
            return
        setattr(layer, field, x)
        self.held.append(Held(layer, field, x._version))

    def spend(self, name: str, tensors: Iterable[Tensor | None]) -> None:
        """Count what a call will add to the memory of the recording.

        Raises:
            OverBudget: it would be more than was allowed.
        """
        wide = None if self.dtype is None else self.dtype.itemsize
        cost = sum(x.numel() * (wide or x.element_size()) for x in tensors if x is not None)
        if self.budget is not None and self.spent + cost > self.budget:
            raise OverBudget(
                f"record: budget={self.budget / 1e9:.3g} GB is spent: {self.spent / 1e9:.3g} GB were recorded, and "
                f"{name!r} "
                f"needs {cost / 1e9:.3g} GB more. {self.spent // max(cost, 1)} calls of this size fit: choose layers=, "
                "heads= or queries=, leave out the values with values=False, halve it with dtype=torch.float16, or "
                "write to a folder with to=."
            )
        self.spent += cost

    def _converts(self, x: Tensor) -> bool:
        return (self.dtype is not None and self.dtype != x.dtype) or (
            self.device is not None and self.device != x.device
        )

    def convert(self, x: Tensor) -> Tensor:
        """A tensor that is ours already, in the dtype and on the device that were asked for."""
        return x.to(device=self.device, dtype=self.dtype) if self._converts(x) else x

    def copy(self, x: Tensor) -> Tensor:
        """A tensor of its own; axes that the model expanded without writing them out (shared keys) stay so."""
        sizes = x.shape
        for axis, stride in enumerate(x.stride()):
            if stride == 0 and sizes[axis] > 1:
                x = x.narrow(axis, 0, 1)
        dtype = self.dtype if self.dtype is not None and x.is_floating_point() else x.dtype
        own = torch.empty_like(x, dtype=dtype, device=self.device if self.device is not None else x.device)
        return own.copy_(x.detach()).expand(sizes)

    def writes(self, func: Any, kwargs: Mapping[str, Any]) -> bool:
        """Whether a function of torch writes into one of its arguments."""
        name = getattr(func, "__name__", "")
        return (name[-1:] == "_" and name[-2:] != "__") or name in WRITES or kwargs.get("out") is not None

    def settle(self, *, copy: bool = False) -> None:
        """Make everything that is held the recording's own: by a copy, unless nobody else has it any more."""
        if not self.held:
            return
        held, self.held = self.held, []
        with torch.inference_mode(False), torch.no_grad(), torch._C.DisableTorchFunction():
            if not copy:
                held = shared(held)
            for layer, field, version in held:
                x = getattr(layer, field)
                if x._version != version:
                    raise ModelError(
                        f"record: {field} of {layer.name!r} was overwritten while its module was still running, by "
                        "code that "
                        "headscope cannot see. Select heads or queries, or give dtype=, and it is copied at once."
                    )
                setattr(layer, field, self.copy(x))


def shared(held: list[Held]) -> list[Held]:
    """Those of the held tensors whose memory somebody else still holds, or that are a small part of a larger one."""
    by_storage: dict[int, list[Held]] = {}
    for one in held:
        by_storage.setdefault(getattr(one.layer, one.field).untyped_storage()._cdata, []).append(one)
    assert count_owners is not None
    keep: list[Held] = []
    for key, ours in by_storage.items():
        tensors = [getattr(one.layer, one.field) for one in ours]
        whole = tensors[0].untyped_storage()
        used = sum(x.numel() * x.element_size() for x in {id(x): x for x in tensors}.values())
        # Each of our tensors owns the storage once, and so does `whole`.
        if count_owners(key) > len(tensors) + 1 or used < SHARE * whole.nbytes():
            keep += ours
    return keep
