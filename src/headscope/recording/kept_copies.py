"""Tensors of a running model, copied at once, so that nothing the model does to them later changes the recording.

A copy is always right: of a cache that is written later, of a view of something larger, of what a backward pass holds.
It is also no dearer than keeping the model's own tensor, whose memory the model would have used again for its next
layer: what is kept costs new memory, one way or the other, and that is what takes the time.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from headscope.errors import OverBudget


class Keeper:
    """Keeps tensors for one recording, in the dtype and on the device that were asked for."""

    def __init__(
        self,
        dtype: torch.dtype | None,
        device: torch.device | None,
        budget: int | None = None,
        *,
        in_graph: bool = False,
    ) -> None:
        """With `in_graph` tensors stay the model's own, in the graph of autograd."""
        self.dtype, self.device, self.budget, self.in_graph = dtype, device, budget, in_graph
        self.spent = 0

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

    def convert(self, x: Tensor) -> Tensor:
        """A tensor that is ours already, in the dtype and on the device that were asked for."""
        return x.to(device=self.device, dtype=self.dtype)

    def copy(self, x: Tensor) -> Tensor:
        """A tensor of its own; axes that the model expanded without writing them out (shared keys) stay so."""
        if self.in_graph:
            return self.convert(x)
        x, sizes = x.detach(), x.shape
        for axis, stride in enumerate(x.stride()):
            if stride == 0 and sizes[axis] > 1:
                x = x.narrow(axis, 0, 1)
        dtype = self.dtype if self.dtype is not None and x.is_floating_point() else x.dtype
        own = torch.empty_like(x, dtype=dtype, device=self.device if self.device is not None else x.device)
        return own.copy_(x).expand(sizes)
