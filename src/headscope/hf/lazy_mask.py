"""A lazy mask: to a transformers model a boolean tensor, to headscope still a few runs of keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from headscope.attention.masks.mask import Dense, Mask
from headscope.compat.torch import tree_map, wrapper_subclass

# What a model may do to a mask that leaves it the same mask, and what it may ask of it.
SAME = frozenset({"contiguous", "detach"})
ASKS = frozenset({"__get__", "dim", "size", "__len__", "is_floating_point", "is_contiguous", "numel"})


class LazyMask(Tensor):
    """A boolean tensor `(b, 1, q, k)` that is only written out when somebody computes with it.

    Transformers makes a mask in one place and reads it in another. In between, models ask for its shape, move it, or
    make it contiguous; a few add it to a bias. The former leaves the runs as they are, the latter gets the dense mask
    that the model would have had on "sdpa".
    """

    mask: Mask
    # The last size: `shape` costs a call of `__torch_function__`.
    keys: int

    @staticmethod
    def __new__(cls, mask: Mask, batch: int, queries: int, keys: int, device: torch.device | str) -> LazyMask:
        """A mask for a batch of so many items, queries and keys."""
        sizes = (batch, 1, queries, keys)
        self: LazyMask = wrapper_subclass(cls, sizes, torch.bool, torch.device(device))
        self.mask, self.keys = mask, keys
        return self

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"LazyMask({self.mask!r}, {tuple(self.shape)})"

    def written_out(self) -> Tensor:
        """The dense mask."""
        b, _, q, k = self.shape
        return self.mask.to_dense(q, k, self.device).expand(b, -1, q, k)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What a model asks stays a question, what leaves the mask the same returns it, and all else gets it dense."""
        name, keywords = getattr(func, "__name__", ""), dict(kwargs or {})
        if name in ASKS:
            return super().__torch_function__(func, types, args, keywords)  # type: ignore[no-untyped-call]
        if name in SAME or (name == "to" and stays(args[0], [*args[1:], *keywords.values()])):
            return args[0]
        if isinstance(args[0], LazyMask) and (name == "__setitem__" or name.endswith("_") > name.endswith("__")):
            changed = args[0].written_out().clone()
            func(changed, *tree_map(dense, args[1:]), **tree_map(dense, keywords))
            args[0].mask = Dense(changed)
            return args[0]
        return func(*tree_map(dense, args), **tree_map(dense, keywords))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Operations that are reached from inside torch get the dense mask."""
        return func(*tree_map(dense, args), **tree_map(dense, dict(kwargs or {})))


def stays(mask: LazyMask, wanted: list[Any]) -> bool:
    """Whether a call of `to` asks for nothing but what the mask is already."""
    dtypes = [x for x in wanted if isinstance(x, torch.dtype)]
    devices = [torch.device(x) for x in wanted if isinstance(x, torch.device | str)]
    tensors = [x for x in wanted if isinstance(x, Tensor)]
    same_dtype = all(x == torch.bool for x in [*dtypes, *(x.dtype for x in tensors)])
    return same_dtype and all(x == mask.device for x in [*devices, *(x.device for x in tensors)])


def dense(x: Any) -> Any:
    """A mask of ours written out; anything else as it is."""
    return x.written_out() if isinstance(x, LazyMask) else x
