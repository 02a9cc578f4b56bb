"""The keys and values of what was seen, so that the next position costs one query and not all of them."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int, Shaped
from torch import Tensor, nn

from headscope.attention.masks.mask import Mask
from headscope.errors import ShapeError
from headscope.nn.cached import Bindings, Cached, cached_layers
from headscope.nn.cached_keys import visible_keys
from headscope.nn.placement import check_positions
from headscope.nn.slot import Slot
from headscope.shapes import shape


class KeyValueCache:
    """The keys and values of every attention layer of a model, for decoding step by step.

    The memory of a cross-attention is kept too: it is projected at the first call and read from here afterwards.

    A cache is plain data under the names of the layers. `copy()`, `copy.copy`, `copy.deepcopy`, pickle and `torch.save`
    take keys and values and nothing of the model, and what they give goes on exactly where this one stands: with this
    model, or with another that has layers of the same names and sizes (`bind`).

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
        layers = cached_layers(model)
        self.slots = {name: Slot(length, limit, window, keep) for name in layers}
        self.bindings = Bindings()
        self.bindings.bind(layers)
        if not self.slots:
            raise ShapeError(
                f"KeyValueCache: {type(model).__name__} holds no headscope.nn.MultiheadAttention; give one that does."
            )
        self.padding: Tensor | None = None
        self.prompt: int | None = None
        if lengths is not None:
            counts = torch.as_tensor(lengths)
            if counts.ndim != 1 or len(counts) != batch or counts.is_floating_point() or int(counts.min()) < 0:
                raise ShapeError(
                    f"KeyValueCache: lengths are {counts.tolist()}; give one length for each of {batch} sequences."
                )
            self.prompt = int(counts.max())
            self.padding = self.prompt - counts.long()
        # The positions argument of all calls, (b, n); None while columns and positions are the same.
        self.positions: Tensor | None = None
        self._mask: tuple[tuple[object, ...], Mask | None] | None = None
        # Whether a block of `intact` looks after all places.
        self.guarded = False

    def copy(self) -> KeyValueCache:
        """The same keys and values in memory of its own: one prompt, several continuations."""
        made = object.__new__(KeyValueCache)
        copied = {
            "slots": {name: slot.copy() for name, slot in self.slots.items()},
            "padding": None if self.padding is None else self.padding.clone(),
            "positions": None if self.positions is None else self.positions.clone(),
        }
        vars(made).update(vars(self) | copied | {"bindings": Bindings(), "_mask": None, "guarded": False})
        return made

    __copy__ = copy

    def __deepcopy__(self, _: object) -> KeyValueCache:
        return self.copy()

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: all but the layers."""
        return {name: value for name, value in vars(self).items() if name not in ("bindings", "_mask", "guarded")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {"bindings": Bindings(), "_mask": None, "guarded": False})

    def bind(self, model: nn.Module) -> KeyValueCache:
        """Go on with the layers of a model, after the cache was copied or loaded; returns the cache.

        Needed where the names of the layers do not identify them: in a new process, for a model of your own.

        Raises:
            ShapeError: the model has no layer of a name that is in the cache.
        """
        layers = cached_layers(model)
        missing = sorted(self.slots.keys() - layers.keys())
        if missing:
            raise ShapeError(
                f"KeyValueCache: it holds keys of {', '.join(map(repr, missing))}; {type(model).__name__} has layers "
                f"{', '.join(map(repr, sorted(layers)))}; give the model that the cache was made for."
            )
        self.bindings = Bindings()
        self.bindings.bind({name: layers[name] for name in self.slots})
        return self

    def move(self, device: torch.device | str) -> KeyValueCache:
        """Move keys and values to a device; returns the cache."""
        for slot in self.slots.values():
            slot.move(device)
        self._mask = None
        return self

    @property
    def seen(self) -> int:
        """How many positions came in so far, padding and positions that the window has dropped included."""
        # A model may hold layers that a decoding does not use: those of an encoder.
        return max(slot.seen for slot in self.slots.values())

    @property
    def lengths(self) -> Int[Tensor, " b"]:
        """How many positions of each sequence came in so far, padding not included."""
        columns = torch.full((self.batch,), self.seen)
        return columns if self.padding is None else (columns.to(self.padding) - self.padding).clamp(min=0)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the cache has taken."""
        return sum(t.nbytes for slot in self.slots.values() for t in slot.tensors())

    def slot(self, layer: Cached, x: Tensor, memory: Tensor | None) -> Slot:
        """The place of a layer; raises `ShapeError` where this call does not fit to what is there."""
        where = type(layer).__name__
        name = self.bindings.name(layer, set(self.slots))
        if name is None:
            raise ShapeError(
                f"{where}: this cache belongs to other layers: {', '.join(map(repr, self.slots))}; make one of this "
                "model, KeyValueCache(model, …), or, when it was copied or loaded, cache.bind(model) first."
            )
        slot = self.slots[name]
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

    def place(
        self, seen: int, n: int, positions: Shaped[Tensor, "*at"] | None, device: torch.device
    ) -> tuple[int | Int[Tensor, " b"], Int[Tensor, "b n"] | None]:
        """Where the next n columns stand: the position of the first, or the positions of all.

        The positions argument of a call is kept, so that the next call continues after the largest of them.
        """
        if positions is None and self.positions is None:
            return (seen if self.padding is None else seen - self.padding.to(device)), None
        if positions is None and self.positions is not None and self.positions.shape[1] >= seen + n:
            # The model, or a layer before this one, has placed these columns.
            return 0, self.positions[:, seen : seen + n].to(device)
        before = self._placed(seen).to(device)
        if positions is None:
            first = before.amax(1) + 1 if seen else torch.zeros(self.batch, dtype=torch.long, device=device)
            positions = first[:, None] + torch.arange(n, device=device)
        check_positions("KeyValueCache", positions, self.batch, n)
        positions = positions.to(before).expand(self.batch, n)
        self.positions = torch.cat((before, positions), 1)
        return 0, positions

    def begin(
        self, model: nn.Module, n: int, positions: Shaped[Tensor, "*at"] | None, device: torch.device
    ) -> tuple[int | Int[Tensor, " b"], Int[Tensor, "b n"] | None]:
        """`place` for a model and all its layers, which are bound where they have the names of the cache."""
        layers = cached_layers(model)
        if not self.bindings.names and self.slots.keys() <= layers.keys():
            self.bind(model)
        if self.positions is not None:
            # Positions that a failed call has left are dropped.
            self.positions = self.positions[:, : self.seen]
        return self.place(self.seen, n, positions, device)

    def _placed(self, seen: int) -> Tensor:
        """The positions of the columns that were seen, `(b, seen)`; those of padding are below 0."""
        if self.positions is not None:
            return self.positions[:, :seen]
        padding = torch.zeros(self.batch, dtype=torch.long) if self.padding is None else self.padding
        return torch.arange(seen, device=padding.device) - padding[:, None]

    def mask(self, slot: Slot, n: int, mask: Mask | None, device: torch.device) -> Mask | None:
        """Who of the last `n` positions may see which of the keys in a place, with the mask of the call itself."""
        if self.padding is None and (self.window is None or n == 1):
            return mask
        key = (n, slot.live, slot.dropped, mask, device)
        # The layers of a model ask for the same mask, one after the other.
        if self._mask is None or self._mask[0] != key:
            padding = None if self.padding is None else self.padding.to(device)
            found = visible_keys(n, slot.live, slot.dropped, mask, window=self.window, keep=self.keep, padding=padding)
            self._mask = (key, found)
        return self._mask[1]

    def reorder(self, index: Int[Tensor, " n"]) -> None:
        """Put the sequences in another order, drop some or double some: item `i` becomes what item `index[i]` was.

        Raises:
            ShapeError: an index that is not in the batch.
        """
        whole = index.ndim == 1 and len(index) > 0 and not index.is_floating_point() and index.dtype != torch.bool
        if not whole or int(index.min()) < 0 or int(index.max()) >= self.batch:
            raise ShapeError(f"reorder: the index is {index.tolist()}; give items from 0 to {self.batch - 1}.")
        for slot in self.slots.values():
            slot.reorder(index)
        self.batch = len(index)
        if self.padding is not None:
            self.padding = self.padding[index.to(self.padding.device)]
        if self.positions is not None:
            self.positions = self.positions[index.to(self.positions.device)]
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
        least, seen = int(counts.min()), self.seen
        extra = (counts - least).long()
        ragged = bool(extra.any())
        own = [slot for slot in self.slots.values() if slot.memory is None]
        for slot in own:
            slot.check_rollback(int(counts.max()), ragged)
        for slot in own:
            slot.rollback(least, extra if ragged else None)
        if ragged:
            self.padding = extra if self.padding is None else self.padding + extra.to(self.padding)
        if self.positions is not None:
            columns = torch.arange(seen - least, device=self.positions.device) - extra.to(self.positions)[:, None]
            self.positions = self.positions.gather(1, columns.clamp(min=0))
        self._mask = None


# At import, because `torch.load` meets a saved cache before anything else has run here: it asks by name, and only of
# these two classes. They are plain data: it fills them with tensors and numbers, and no code from the file runs.
torch.serialization.add_safe_globals([KeyValueCache, Slot])
