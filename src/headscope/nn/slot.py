"""The place of one layer in a cache: its keys and values, side by side in memory in the order of time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.errors import ShapeError


class Slot:
    """Keys and values of one layer.

    What is seen lies in the columns `start … stop - 1` of the two tensors. A window moves `start` ahead, and its kept
    first keys are copied to just before the window: so what a query reads is always one slice, in the order of time.

    Attributes:
        seen: positions that came in.
        memory: keys and values of a memory, for a cross-attention.
    """

    def __init__(self, length: int, limit: int | None, window: int | None, keep: int) -> None:
        self.length, self.limit, self.window, self.keep = length, limit, window, keep
        self.start = self.stop = self.seen = 0
        self.k: Tensor | None = None
        self.v: Tensor | None = None
        self.memory: tuple[Tensor, Tensor] | None = None

    @property
    def live(self) -> int:
        """How many keys are there to see."""
        return self.stop - self.start

    @property
    def dropped(self) -> int:
        """How many keys the window has dropped."""
        return self.seen - self.live

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that take memory."""
        return (*(t for t in (self.k, self.v) if t is not None), *(self.memory or ()))

    def check_room(self, where: str, n: int) -> None:
        """Raise `ShapeError` when `n` more positions are more than the limit."""
        if self.limit is not None and self.window is None and self.seen + n > self.limit:
            raise ShapeError(
                f"{where}: the cache is full: it holds {self.seen} of at most {self.limit} positions, {n} more came. "
                "Make it with a larger limit, or with a window."
            )

    def check_memory(self, where: str, memory: Tensor | None) -> None:
        """Raise `ShapeError` when a memory is given that is not the one that is kept here."""
        if self.seen:
            raise ShapeError(
                f"{where}: the cache holds {self.seen} positions of x itself and a memory came; use a cache for each."
            )
        if memory is not None and self.memory is not None and memory.shape[1] != self.memory[0].shape[2]:
            raise ShapeError(
                f"{where}: the cache holds a memory of {self.memory[0].shape[2]} positions "
                f"and one of {memory.shape[1]} came; make a new cache for a new memory."
            )

    def append(self, k: Float[Tensor, "b g n d"], v: Float[Tensor, "b g n d"]) -> tuple[Tensor, Tensor]:
        """Take in new keys and values; all that may be seen from them."""
        n = k.shape[2]
        if self.window is not None:
            self.drop(self.live - (self.keep + self.window - 1))
        if torch.is_grad_enabled() and (k.requires_grad or v.requires_grad):
            # What gradients need must not be written over: every step has tensors of its own.
            span = slice(self.start, self.stop)
            self.k = k if self.k is None else torch.cat((self.k[:, :, span], k), dim=2)
            self.v = v if self.v is None else torch.cat((self.v[:, :, span], v), dim=2)
            self.start, self.stop = 0, self.live + n
        else:
            self.make_room(n, k, v)
            assert self.k is not None
            assert self.v is not None
            self.k[:, :, self.stop : self.stop + n] = k
            self.v[:, :, self.stop : self.stop + n] = v
            self.stop += n
        self.seen += n
        if self.start == 0 and self.stop == self.k.shape[2]:
            return self.k, self.v
        return self.k[:, :, self.start : self.stop], self.v[:, :, self.start : self.stop]

    def drop(self, count: int) -> None:
        """Drop the oldest keys that are not kept."""
        if count <= 0:
            return
        assert self.k is not None
        assert self.v is not None
        kept, rest = slice(self.start, self.start + self.keep), slice(self.start + count + self.keep, self.stop)
        if self.k.requires_grad or self.v.requires_grad:
            self.k, self.v = (torch.cat((t[:, :, kept], t[:, :, rest]), dim=2) for t in (self.k, self.v))
            self.start, self.stop = 0, self.live - count
            return
        if self.keep:
            for t in (self.k, self.v):
                t[:, :, self.start + count : self.start + count + self.keep] = t[:, :, kept].clone()
        self.start += count

    def make_room(self, n: int, k: Tensor, v: Tensor) -> None:
        """See to it that `n` more columns fit: move what is there to the front, or to twice the memory."""
        size = 0 if self.k is None else self.k.shape[2]
        if self.k is not None and self.stop + n <= size:
            return
        needed = self.live + n
        if 2 * needed > size:
            size = max(self.length, 2 * size, needed) if self.k is not None else max(self.length, needed)
            if self.window is not None:
                size = max(size, 2 * needed)
            elif self.limit is not None:
                size = min(size, self.limit)
        self.k, self.v = (moved(old, new, self.start, self.stop, size) for old, new in ((self.k, k), (self.v, v)))
        self.start, self.stop = 0, self.live

    def reorder(self, index: Tensor) -> None:
        """Another order of the batch."""
        if self.memory is not None:
            k, v = self.memory
            self.memory = k[index.to(k.device)], v[index.to(v.device)]
        if self.k is not None and self.v is not None:
            size = self.k.shape[2]
            span = slice(self.start, self.stop)
            self.k = moved(self.k[index.to(self.k.device), :, span], self.k, 0, self.live, size)
            self.v = moved(self.v[index.to(self.v.device), :, span], self.v, 0, self.live, size)
            self.start, self.stop = 0, self.live

    def check_rollback(self, count: int, ragged: bool) -> None:
        """Raise `ShapeError` when the last `count` positions cannot be forgotten."""
        if self.dropped and (ragged or self.window is None or self.live - count < self.keep + self.window - 1):
            raise ShapeError(
                f"rollback: {count} positions back the window would need keys that it has dropped; "
                "roll back at most the positions of the last call, the same number for all."
            )

    def rollback(self, count: int, extra: Tensor | None) -> None:
        """Forget the last `count` positions, and `extra[i]` more of item i, which moves on by as many columns."""
        self.stop, self.seen = self.stop - count, self.seen - count
        if extra is None or self.k is None or self.v is None:
            return
        columns = torch.arange(self.live, device=self.k.device) - extra.to(self.k.device)[:, None]
        at = columns.clamp(min=0)[:, None, :, None] + self.start
        for t in (self.k, self.v):
            t[:, :, self.start : self.stop] = t.gather(2, at.expand(-1, t.shape[1], -1, t.shape[3]))


def moved(old: Tensor | None, like: Tensor, start: int, stop: int, size: int) -> Tensor:
    """Memory for `size` columns, with the columns `start … stop - 1` of what there was at its front."""
    b = len(like) if old is None else len(old)
    # Ordinary tensors even in inference mode, so that the cache can be written to outside of it.
    with torch.inference_mode(False):
        new = torch.empty(b, like.shape[1], size, like.shape[3], device=like.device, dtype=like.dtype)
    if old is not None:
        new[:, :, : stop - start] = old[:, :, start:stop]
    return new
