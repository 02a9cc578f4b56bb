"""A call that fails leaves a cache as it was: what its layers had put there already is taken out again."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from headscope.nn.cache import KeyValueCache
    from headscope.nn.slot import Slot


def intact(cache: KeyValueCache | None, slots: tuple[Slot, ...] | None = None) -> AbstractContextManager[object]:
    """A block that takes back what was put into these places of a cache, or into all, when it ends with an error.

    Without it the keys of a call that failed half-way (no memory, a mask that does not fit, Ctrl-C) would stay in some
    layers, and the call that comes next would attend to them. Inside of a block for all places another one for all
    does nothing: a model looks after its layers.
    """
    # A compiled call has no half-way.
    if cache is None or torch.compiler.is_compiling() or (slots is None and cache.guarded):
        return nullcontext()
    return Intact(cache, slots)


class Intact:
    """The block of `intact`: remembers what each place has seen, and goes back to it."""

    __slots__ = ("cache", "guarded", "positions", "slots")

    def __init__(self, cache: KeyValueCache, slots: tuple[Slot, ...] | None) -> None:
        self.cache, self.positions, self.guarded = cache, cache.positions, cache.guarded
        places = cache.slots.values() if slots is None else slots
        self.slots: list[tuple[Slot, int, tuple[Tensor, Tensor] | None]] = [(s, s.seen, s.memory) for s in places]
        cache.guarded = cache.guarded or slots is None

    def __enter__(self) -> Intact:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.cache.guarded = self.guarded
        if kind is None:
            return
        for slot, seen, memory in self.slots:
            # Keys that a window dropped meanwhile are those that no later query needs.
            slot.rollback(slot.seen - seen, None)
            slot.memory = memory
        self.cache.positions = self.positions
