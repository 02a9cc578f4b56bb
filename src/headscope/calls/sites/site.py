"""A place where attention is called: what every file of this folder knows of its own."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from torch import Tensor

from headscope.calls import blocks
from headscope.calls.blocks import Read
from headscope.calls.call import Call
from headscope.calls.mask_rows import Reader
from headscope.calls.replaced import Replacement

Arguments = dict[str, Any]


class Site(ABC):
    """How to read a call of one function (or of a few that are alike), and how to read and replace its output.

    A site is intercepted in one of two ways: torch's function mode sees `functions()` and operators with a name in
    `operators`, and calls `around`; or `replacements()` stand in for functions that the mode does not see.
    """

    name: ClassVar[str]
    operators: ClassVar[tuple[str, ...]] = ()
    # Whether a call can only be read when it has returned.
    reads_afterwards: ClassVar[bool] = False

    def functions(self) -> Iterable[Any]:
        """Functions that torch's function mode sees."""
        return ()

    def replacements(self) -> Iterable[Replacement]:
        """Functions that are replaced while a block is open; asked at the beginning of each block."""
        return ()

    @abstractmethod
    def arguments(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """The arguments of a call by name."""

    @abstractmethod
    def read(self, reader: Reader, heads: int | None, arguments: Arguments) -> Call | None:
        """The call; None where it turns out to be no attention.

        Args:
            heads: how many heads the calling module says it has.
        """

    def refusal(self, output: Any, arguments: Arguments) -> str | None:
        """Why the output of a call cannot be edited; None where it can."""
        return None

    @abstractmethod
    def values(self, output: Any, arguments: Arguments, heads: int | None) -> Tensor:
        """The values `(b, h, q, e)` in what the function returned."""

    @abstractmethod
    def replace(self, output: Any, values: Tensor, arguments: Arguments) -> Any:
        """What the function returned, with other values."""

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The function itself."""
        return func(*args, **kwargs)

    def around(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The function's own result, captured and edited for the blocks that are open."""
        get_arguments = functools.cache(lambda: self.arguments(func, args, kwargs))

        def read(reader: Reader, heads: int | None) -> Call | None:
            return self.read(reader, heads, get_arguments())

        if not self.reads_afterwards:
            blocks.capture(self.name, read)
        output = self.run(func, args, kwargs)
        if self.reads_afterwards:
            blocks.capture(self.name, read)
        return self.edit(output, get_arguments, read)

    def edit(self, output: Any, get_arguments: Callable[[], Arguments], read: Read) -> Any:
        """A function's result after the edits of the blocks that are open."""
        if not blocks.editing():
            return output
        arguments = get_arguments()
        why = self.refusal(output, arguments)
        if why is not None:
            blocks.refuse(self.name, why)
            return output
        values = self.values(output, arguments, blocks.running_heads())
        edited = blocks.edited(values, read)
        return output if edited is values else self.replace(output, edited, arguments)
