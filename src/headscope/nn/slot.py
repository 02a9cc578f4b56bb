"""The place of one layer in a cache: its keys and values, side by side in memory in the order of time."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.attention.known import known
from headscope.compat.torch import in_transform
from headscope.errors import ShapeError


class Slot:
    """Keys and values of one layer.

    What is seen lies in the columns `start … stop - 1` of the two tensors. A window moves `start` ahead, and its kept
    first keys are copied to just before the window: so what a query reads is always one slice, in the order of time.
    They are kept in the widest dtype that came in, and read in the dtype of the call: under autocast and outside of it.

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

    def copy(self) -> Slot:
        """The same keys and values in tensors of their own; gradients still flow to where they came from."""
        made = Slot(self.length, self.limit, self.window, self.keep)
        made.seen, made.stop = self.seen, self.live
        span = slice(self.start, self.stop)
        # Ordinary tensors even in inference mode, so that the copy can be written to outside of it.
        with torch.inference_mode(False):
            made.k, made.v = (None if t is None else t[:, :, span].clone() for t in (self.k, self.v))
            made.memory = None if self.memory is None else (self.memory[0].clone(), self.memory[1].clone())
        return made

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: numbers and tensors of their own, without the room for what is to come and without autograd."""
        made = self.copy()
        made.k, made.v = (None if t is None else t.detach() for t in (made.k, made.v))
        made.memory = None if made.memory is None else (made.memory[0].detach(), made.memory[1].detach())
        return vars(made)

    def __deepcopy__(self, _: object) -> Slot:
        return self.copy()

    __copy__ = copy

    def move(self, device: torch.device | str) -> None:
        """Move keys and values to a device."""
        self.k, self.v = (None if t is None else t.to(device) for t in (self.k, self.v))
        self.memory = None if self.memory is None else (self.memory[0].to(device), self.memory[1].to(device))

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

    def check_like(self, where: str, k: Tensor) -> None:
        """Raise `ShapeError` when keys are not like those that are kept: then they are of another layer."""
        kept = self.k if self.memory is None else self.memory[0]
        if kept is None:
            return
        (_, heads, _, size), (_, came, _, wide) = kept.shape, k.shape
        if (heads, size) != (came, wide):
            raise ShapeError(
                f"{where}: the cache holds keys of {heads} heads of size {size} under this layer's name, and this "
                f"layer makes {came} of size {wide}; make a cache of this model: KeyValueCache(model, …)."
            )
        if kept.device != k.device:
            raise ShapeError(
                f"{where}: the cache is on {kept.device} and this layer on {k.device}; move it: "
                f"cache.move({str(k.device)!r})."
            )
        if known(k) and not known(kept):
            raise ShapeError(
                f"{where}: the cache was filled inside of a transform of torch.func or of FakeTensorMode, and what it "
                "holds ended there; give a copy to calls in there: cache.copy()."
            )

    def append(self, k: Float[Tensor, "b g n d"], v: Float[Tensor, "b g n d"]) -> tuple[Tensor, Tensor]:
        """Take in new keys and values; all that may be seen from them, in their dtype."""
        n, dtype = k.shape[2], k.dtype
        if self.window is not None:
            self.drop(self.live - (self.keep + self.window - 1))
        tracked = torch.is_grad_enabled() and (k.requires_grad or v.requires_grad)
        if tracked or (not torch.compiler.is_compiling() and (in_transform(k) or in_transform(v))):
            # What gradients need must not be written over, and what vmap makes is written into nothing that was made
            # outside of it: every step has tensors of its own.
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
            return self.k.to(dtype), self.v.to(dtype)
        return self.k[:, :, self.start : self.stop].to(dtype), self.v[:, :, self.start : self.stop].to(dtype)

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
        wider = self.k is not None and torch.promote_types(self.k.dtype, k.dtype) != self.k.dtype
        if self.k is not None and self.stop + n <= size and not wider:
            return
        needed = self.live + n
        if 2 * needed > size and not (wider and self.stop + n <= size):
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
        dtype = like.dtype if old is None else torch.promote_types(old.dtype, like.dtype)
        new = torch.empty(b, like.shape[1], size, like.shape[3], device=like.device, dtype=dtype)
    if old is not None:
        new[:, :, : stop - start] = old[:, :, start:stop]
    return new
