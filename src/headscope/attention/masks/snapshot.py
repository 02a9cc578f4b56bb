"""Whether a tensor still holds what was read from it, so that what was made of it may be used again."""

from __future__ import annotations

import torch
from torch import Tensor

from headscope.attention.known import PLAIN
from headscope.compat.torch import version_of

# Numbers of a tensor that are copied to be compared, at most; a larger one is read again at every call.
COPIED = 2**22


class Snapshot:
    """A tensor as it is now.

    Torch counts what is written to a tensor, but not by whom else its memory is used: numpy, another process, a file.
    Such a tensor, and one of inference mode, is compared number by number. What is written through `x.data` is not
    seen, as autograd does not see it.
    """

    __slots__ = ("numbers", "place", "version")

    def __init__(self, x: Tensor) -> None:
        self.version: int | None = None
        self.numbers: Tensor | None = None
        if type(x) not in PLAIN:
            return  # one of another class may have no memory of its own
        version, self.place = version_of(x), x.data_ptr()
        if version is not None and x.untyped_storage().resizable():
            self.version = version
        elif x.numel() <= COPIED:
            self.numbers = x.detach().clone()

    @property
    def lasts(self) -> bool:
        """Whether a change of the tensor will be noticed."""
        return self.version is not None or self.numbers is not None

    def holds(self, x: Tensor) -> bool:
        """Whether the same tensor has still these numbers."""
        if self.numbers is not None:
            return x.dtype == self.numbers.dtype and torch.equal(self.numbers, x)
        if self.version is None or self.version != version_of(x) or self.place != x.data_ptr():
            return False
        # numpy may have been given the memory since.
        return bool(x.untyped_storage().resizable())
