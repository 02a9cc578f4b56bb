"""Modules that may be moved and cast wherever torch may: also inside `torch.inference_mode`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from headscope.compat.arguments import require_overrides


class Movable(nn.Module):
    """A module whose parameters stay ordinary tensors when it is moved or cast in inference mode.

    In inference mode `nn.Module.to` leaves tensors that autograd refuses ever after; here the model can be trained.
    """

    def __init__(self) -> None:
        super().__init__()
        require_overrides(nn.Module, ["_apply"], type(self).__name__)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Movable:
        with torch.inference_mode(False):
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
