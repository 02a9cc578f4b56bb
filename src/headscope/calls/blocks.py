"""The blocks that are open, and what reaches them: attention calls to capture, outputs to edit.

A block belongs to the thread and the task (`contextvars`) that opened it; calls of other threads and tasks pass by.
What an intercepted call does for its blocks never breaks the model: see `Block.capture`.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from headscope.calls.call import Call
from headscope.calls.kinds import kind_of
from headscope.calls.mask_rows import Reader
from headscope.calls.modules import Running, Stack
from headscope.compat.torch import in_backward, in_transform, own_computation
from headscope.errors import HeadscopeError, ModelError
from headscope.look.sequences import Sequences, found

# Reads a call with a reader of masks, and how many heads the calling module says it has; None: it is no attention.
Read = Callable[[Reader, int | None], Call | None]
HEAD_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead")


@dataclass(frozen=True)
class Output:
    """What one attention call gives back to the model.

    Attributes:
        layer: the number of the calling module, in the order of first calls, as in a recording.
        name: its path.
        values: `(b, h, q, e)`.
        call: reads the call that made them; None where that cannot be read.
        running: the calling module.
    """

    layer: int
    name: str
    values: Tensor
    call: Callable[[], Call | None]
    running: Running

    def sequences(self) -> list[Sequences] | None:
        """Which queries of each item count, and which sequence each belongs to; None where the call cannot be read."""
        with own_computation():
            call = self.call()
        if call is None:
            return None
        queries, keys = call.q.shape[2], call.k.shape[2]
        own = kind_of(self.running, call) != "cross" and queries <= keys
        items = [None] * len(self.values) if call.runs is None else [call.runs.item(i) for i in range(len(self.values))]
        return [found(runs, queries, keys, own, None, None, None) for runs in items]

    @property
    def v(self) -> Tensor:
        """The values that the weights were applied to, `(b, g, k, e)`."""
        with own_computation():
            call = self.call()
        if call is None:
            raise ModelError(f"the values that went into layer {self.layer} ({self.name!r}) cannot be read.")
        return call.v


class Block:
    """A model for the time of a `with` block, and what its attention calls are captured or edited for."""

    # Whether `edit` wants the outputs of calls.
    edits = False

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.stack = Stack(model)
        # The one numbering of layers: modules that call attention, in the order of their first calls.
        self.numbers: dict[str, int] = {}
        self.read: Reader = Reader()
        self.thread = threading.get_ident()
        self.open = False
        # Paths of modules whose calls could not be captured, with the reason.
        self.missed: dict[str, str] = {}
        self.error: HeadscopeError | None = None

    def number(self, name: str) -> int:
        """The number of the layer with this path."""
        return self.numbers.setdefault(name, len(self.numbers))

    def capture(self, running: list[Running], make: Callable[[], Call | None]) -> None:
        """Take an attention call; `make` reads it. What is raised here ends up in `error` or `missed`."""
        self.number(running[-1].name)

    def edit(self, output: Output) -> Tensor | None:
        """What the model gets in the place of an output's values, of the same shape; None leaves them."""
        return None

    def refuse(self, name: str, what: str, why: str) -> None:
        """An output that cannot be edited: raise an error if this block was to edit it."""


class Outer(ABC):
    """A function that is captured and edited as one call, while it runs."""

    def __init__(self) -> None:
        # The blocks that captured a call of a function inside.
        self.captured: set[int] = set()

    @abstractmethod
    def refine(self, call: Call, block: Block) -> Call:
        """A call captured inside, with what is known outside."""


class Local(threading.local):
    """What one thread has going on inside of intercepted functions."""

    def __init__(self) -> None:
        self.outer: list[Outer] = []
        # Above 0 while a function runs that was captured as one call: what it calls is neither captured nor edited.
        self.suppressed = 0


local = Local()
_open: contextvars.ContextVar[tuple[Block, ...]] = contextvars.ContextVar("headscope_blocks", default=())
# Every open block of the process.
_all: list[Block] = []


def add(block: Block) -> None:
    """Open a block in this thread and task."""
    block.open = True
    _all.append(block)
    _open.set((*_open.get(), block))


def discard(block: Block) -> None:
    """Close a block, in whatever thread or task."""
    block.open = False
    _all.remove(block)
    _open.set(tuple(one for one in _open.get() if one is not block))


def here() -> list[Block]:
    """The blocks that are open in this thread and task."""
    blocks = _open.get()
    if not blocks:
        return []
    thread = threading.get_ident()
    return [one for one in blocks if one.open and one.thread == thread]


def elsewhere(module: nn.Module) -> None:
    """Note that a module runs outside of the threads and tasks of the blocks that are open for its model."""
    ours = here()
    for block in _all:
        if block not in ours and block.stack.has(module):
            block.stack.elsewhere = True


@contextlib.contextmanager
def suppressed() -> Iterator[None]:
    """While a function runs that is captured as one call."""
    local.suppressed += 1
    try:
        yield
    finally:
        local.suppressed -= 1


@contextlib.contextmanager
def inside(outer: Outer) -> Iterator[None]:
    """While a function runs whose inner calls are captured with what it knows, and whose own output is edited."""
    local.outer.append(outer)
    try:
        yield
    finally:
        local.outer.pop()


def capture(what: str, read: Read, skip: Collection[int] = (), part: str | None = None) -> None:
    """Let every block whose model is running take a call of the function `what`.

    Args:
        skip: the ids of blocks that have captured the call already.
        part: the submodule of the running module whose call it is, where the function stands for both.
    """
    if local.suppressed:
        return
    for block in here():
        # Inside a backward pass a forward runs again (activation checkpointing): that call was captured already.
        if block.stack.running and id(block) not in skip and not in_backward():
            running = block.stack.within(part)
            for outer in local.outer:
                outer.captured.add(id(block))
            with guarded(block, running[-1], what):
                block.capture(running, functools.partial(made, block, running[-1].module, read))


def miss(why: str) -> None:
    """Note for every block whose model is running that attention was called and cannot be captured."""
    for block in here():
        if block.stack.running and not local.suppressed and not in_backward():
            block.missed.setdefault(block.stack.running[-1].name, why)


def made(block: Block, module: nn.Module, read: Read) -> Call | None:
    """The call, read without a trace in the model's graph or in other modes."""
    call = read(block.read, head_count(module))
    if call is None:
        return None
    if any(in_transform(x) for x in (call.q, call.k)):
        raise ModelError(
            "it was called inside a transform of torch.func (vmap, grad, jvp), where tensors have no numbers yet; "
            "run the model once outside of the transform to record it."
        )
    for outer in local.outer:
        call = outer.refine(call, block)
    return call


@contextlib.contextmanager
def guarded(block: Block, running: Running, what: str) -> Iterator[None]:
    """An exception becomes the block's own error at its end, or a warning; never the model's."""
    try:
        yield
    except ModelError as error:
        block.missed.setdefault(running.name, str(error))
    except HeadscopeError as error:
        block.error = block.error or error
    except Exception as error:  # noqa: BLE001  # capturing must not break the model, whatever it met
        reason = f"reading the call of {what} failed: {type(error).__name__}: {error}"
        block.missed.setdefault(running.name, reason)
        warnings.warn(
            f"headscope: the attention of {running.name or type(running.module).__name__!r} was not captured; "
            f"{reason}; the model itself is not affected.",
            stacklevel=2,
        )


def edited(values: Tensor, read: Read) -> Tensor:
    """The values of a call after the edits of all blocks whose model is running, in the order they were opened in."""
    for block in here():
        if block.edits and block.stack.running:
            running = block.stack.running[-1]

            call = functools.partial(made, block, running.module, read)
            # What an edit computes is not the model's, and neither captured nor edited.
            with own_computation(), suppressed():
                new = block.edit(Output(block.number(running.name), running.name, values, call, running))
            values = values if new is None else new
    return values


def editing() -> bool:
    """Whether a block that edits is open here and its model is running, so that outputs matter."""
    return not local.suppressed and not local.outer and any(one.edits and one.stack.running for one in here())


def refuse(what: str, why: str) -> None:
    """Tell the blocks that edit that the output of a function cannot be edited."""
    for block in here():
        if block.edits and block.stack.running:
            block.refuse(block.stack.running[-1].name, what, why)


def head_count(module: nn.Module) -> int | None:
    """How many heads a module says it has."""
    for name in HEAD_COUNTS:
        count: Any = getattr(module, name, None)
        if isinstance(count, int) and not isinstance(count, bool) and count > 0:
            return count
    return None


def innermost() -> Running | None:
    """The innermost running module of the blocks that are open here."""
    return next((block.stack.running[-1] for block in here() if block.stack.running), None)


def running_heads() -> int | None:
    """How many heads the innermost running module says it has."""
    running = innermost()
    return None if running is None else head_count(running.module)
