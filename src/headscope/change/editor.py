"""A block in which the outputs of a model's attention calls are edited, on their way back to the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from types import TracebackType

from torch import Tensor, nn

from headscope.calls.blocks import Block, Output
from headscope.calls.interception import opened
from headscope.errors import LookError, ModelError

__all__ = ["Edit", "Editor", "Output"]

# An output -> the values that the model gets in its place, of the same shape; None leaves it as it is.
Edit = Callable[[Output], Tensor | None]


class Editing(Block):
    """The edits of one block, made where its calls are intercepted."""

    edits = True

    def __init__(self, where: str, model: nn.Module, change: Edit, layers: set[int]) -> None:
        super().__init__(model)
        self.where, self.change, self.layers = where, change, layers

    def edit(self, output: Output) -> Tensor | None:
        """The edited values, where the layer was named; every layer where none was."""
        return self.change(output) if not self.layers or output.layer in self.layers else None

    def refuse(self, name: str, what: str, why: str) -> None:
        """Raise for a layer that was named."""
        number = self.number(name)
        if not self.layers or number in self.layers:
            raise ModelError(
                f"{self.where}: the heads of layer {number} ({name!r}) cannot be changed: it is {what}, and {why}. "
                "Leave the layer out, or let the module call scaled_dot_product_attention."
            )


class Editor:
    """A block for the time of a `with`; nothing of it is left behind, whatever happens inside."""

    def __init__(self, where: str, model: nn.Module | object, edit: Edit, layers: Iterable[int] = ()) -> None:
        if not isinstance(model, nn.Module):
            raise ModelError(
                f"{where}: expected a torch.nn.Module, got {type(model).__name__}; give the torch.nn.Module whose "
                "heads are to be changed."
            )
        self.where, self.model, self.edit, self.layers = where, model, edit, set(layers)
        self._open: tuple[Editing, contextlib.ExitStack] | None = None

    def __enter__(self) -> Editor:
        if self._open is not None:
            raise ModelError(f"{self.where}: this block is open already; call hs.{self.where}(...) again for another.")
        with contextlib.ExitStack() as stack:
            block = Editing(self.where, self.model, self.edit, self.layers)
            stack.enter_context(opened(block))
            self._open = block, stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._open is not None
        (block, stack), self._open = self._open, None
        stack.close()
        missing = self.layers - set(block.numbers.values())
        if kind is None and missing:
            count = len(block.numbers)
            seen = f"there are {count}, from 0 to {count - 1}" if count else "none was"
            raise LookError(f"{self.where}: layer {min(missing)} was not called in this block; {seen}.")
