"""The keys and values of what was seen, so that the next position costs one query and not all of them."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor, nn

from headscope.attention.masks.lengths import first
from headscope.attention.masks.mask import Given, Mask
from headscope.attention.masks.runs import Runs
from headscope.attention.masks.window import Window, causal, window
from headscope.errors import ShapeError
from headscope.nn.slot import Slot
from headscope.shapes import shape


class Cached(nn.Module):
    """A layer that keeps keys and values in a cache."""


class KeyValueCache:
    """The keys and values of every attention layer of a model, for decoding step by step.

    The memory of a cross-attention is kept too: it is projected at the first call and read from here afterwards.

    Args:
        model: the layers inside that attend get a place each; a single `MultiheadAttention` will do.
        batch: how many sequences.
        length: for how many positions memory is taken at first; it grows by doubling.
        limit: the most positions; one more is an error. None: as many as memory holds.
        window: only the last so many keys, a query's own included, are kept and seen.
        keep: with a window, the first so many keys are kept and seen as well (attention sinks).
        lengths: where the prompts have different lengths: these. They come aligned to the end, the shorter ones after
            empty positions.

    Raises:
        ShapeError: sizes that mean nothing. In use: a cache of another model or batch, or a full one; it is unchanged.

    Source: Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks", for window and keep.

    Example:
        >>> import headscope as hs
        >>> layer, x = hs.nn.MultiheadAttention(8, 2), torch.randn(1, 5, 8)
        >>> cache = KeyValueCache(layer, batch=1)
        >>> steps = [layer(x[:, i : i + 1], mask=hs.causal(), cache=cache) for i in range(5)]
        >>> bool(torch.allclose(torch.cat(steps, 1), layer(x, mask=hs.causal()), atol=1e-6))
        True
    """

    def __init__(
        self,
        model: nn.Module,
        batch: int,
        length: int = 256,
        *,
        limit: int | None = None,
        window: int | None = None,
        keep: int = 0,
        lengths: Int[Tensor, " b"] | list[int] | None = None,
    ) -> None:
        sizes = {"batch": batch, "length": length, "limit": limit, "window": window, "keep + 1": keep + 1}
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise ShapeError(f"KeyValueCache: {name} is {size}; give at least 1.")
        if keep and (window is None or lengths is not None):
            raise ShapeError(
                "KeyValueCache: keep is for a window over sequences of one length; give window, and no lengths."
            )
        self.batch, self.limit, self.window, self.keep = batch, limit, window, keep
        length = length if limit is None else min(length, limit)
        self.slots = {
            layer: Slot(length, limit, window, keep) for layer in model.modules() if isinstance(layer, Cached)
        }
        if not self.slots:
            raise ShapeError(
                f"KeyValueCache: {type(model).__name__} holds no headscope.nn.MultiheadAttention; give one that does."
            )
        self.padding: Tensor | None = None
        self.prompt: int | None = None
        if lengths is not None:
            given = torch.as_tensor(lengths)
            if given.ndim != 1 or len(given) != batch or int(given.min()) < 0:
                raise ShapeError(
                    f"KeyValueCache: lengths are {given.tolist()}; give one length for each of {batch} sequences."
                )
            self.prompt = int(given.max())
            self.padding = self.prompt - given.long()
        self._mask: tuple[tuple[object, ...], Mask | None] | None = None

    @property
    def seen(self) -> int:
        """How many positions came in so far, padding and positions that the window has dropped included."""
        # A model may hold layers that a decoding does not use: those of an encoder.
        return max(slot.seen for slot in self.slots.values())

    @property
    def lengths(self) -> Int[Tensor, " b"]:
        """How many positions of each sequence came in so far, padding not included."""
        whole = torch.full((self.batch,), self.seen)
        return whole if self.padding is None else (whole.to(self.padding) - self.padding).clamp(min=0)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the cache has taken."""
        return sum(t.nbytes for slot in self.slots.values() for t in slot.tensors())

    def slot(self, layer: Cached, x: Tensor, memory: Tensor | None) -> Slot:
        """The place of a layer; raises `ShapeError` where this call does not fit to what is there."""
        slot, where = self.slots.get(layer), type(layer).__name__
        if slot is None:
            raise ShapeError(
                f"{where}: this cache belongs to other layers; make one of this model: KeyValueCache(model, …)."
            )
        if len(x) != self.batch:
            raise ShapeError(
                f"{where}: x has a batch of {len(x)} and the cache of {self.batch}; "
                "make a cache of that batch, or reorder this one."
            )
        if memory is not None or slot.memory is not None:
            slot.check_memory(where, memory)
            return slot
        slot.check_room(where, x.shape[1])
        if self.prompt is not None and slot.seen == 0 and x.shape[1] != self.prompt:
            raise ShapeError(
                f"{where}: x has {x.shape[1]} positions and the cache waits for prompts of at most {self.prompt}; "
                "give all prompts at once, aligned to the end, as long as the longest."
            )
        return slot

    def first_positions(self, seen: int, device: torch.device) -> int | Int[Tensor, " b"]:
        """The position that comes next, in all sequences or in each of them."""
        return seen if self.padding is None else seen - self.padding.to(device)

    def mask(self, slot: Slot, n: int, given: Mask | None, device: torch.device) -> Mask | None:
        """Who of the last `n` positions may see which of the keys in a place, with what the call itself asks for."""
        if self.padding is None and (self.window is None or n == 1):
            return given
        live, dropped = slot.live, slot.dropped
        key = (n, live, dropped, given, device)
        # The layers of a model ask for the same mask, one after the other.
        if self._mask is None or self._mask[0] != key:
            self._mask = (key, self._combine(n, live, dropped, given, device))
        return self._mask[1]

    def _combine(self, n: int, live: int, dropped: int, given: Mask | None, device: torch.device) -> Mask | None:
        parts = [] if given is None or (n == 1 and isinstance(given, Window) and given.left is None) else [given]
        if self.window is not None and n > 1:
            reach = window(self.window - 1)
            parts.append(reach if not self.keep else causal() & (first(self.keep) | reach))
        if self.padding is not None:
            start = (self.padding.to(device) - dropped).clamp(0, live).int()[:, None, None, None]
            parts.append(Given(Runs(start, torch.full_like(start, live)), live))
        mask = parts[0] if parts else None
        for part in parts[1:]:
            assert mask is not None
            mask = mask & part
        return mask

    def reorder(self, index: Int[Tensor, " n"]) -> None:
        """Put the sequences in another order, drop some or double some: item `i` becomes what item `index[i]` was.

        Raises:
            ShapeError: an index that is not in the batch.
        """
        if index.ndim != 1 or len(index) == 0 or int(index.min()) < 0 or int(index.max()) >= self.batch:
            raise ShapeError(f"reorder: the index is {index.tolist()}; give items from 0 to {self.batch - 1}.")
        for slot in self.slots.values():
            slot.reorder(index)
        self.batch = len(index)
        if self.padding is not None:
            self.padding = self.padding[index.to(self.padding.device)]
        self._mask = None

    def rollback(self, count: int | Int[Tensor, " b"]) -> None:
        """Forget the last `count` positions, of all sequences or a number of its own for each.

        Raises:
            ShapeError: more than there are, or than a window still has.
        """
        counts = torch.full((self.batch,), count) if isinstance(count, int) else count
        most = self.lengths.to(counts.device)
        if shape(counts) != (self.batch,) or bool(((counts < 0) | (counts > most)).any()):
            raise ShapeError(
                f"rollback: count is {count if isinstance(count, int) else count.tolist()} and the sequences have "
                f"{most.tolist()} positions; give from 0 to that many, one number for all or one for each."
            )
        least = int(counts.min())
        extra = (counts - least).long()
        ragged = bool(extra.any())
        own = [slot for slot in self.slots.values() if slot.memory is None]
        for slot in own:
            slot.check_rollback(int(counts.max()), ragged)
        for slot in own:
            slot.rollback(least, extra if ragged else None)
        if ragged:
            self.padding = extra if self.padding is None else self.padding + extra.to(self.padding)
        self._mask = None
