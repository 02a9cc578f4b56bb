"""Masks: who may attend to whom, as runs of keys.

Every mask says who *may* attend (True, or inside a run). Queries and keys are aligned at their ends: the last query is
at the last key's position, so a cache needs no special case. `&` keeps what both allow, `|` what either allows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headscope.attention.device import capturing
from headscope.attention.known import in_mode, known
from headscope.attention.masks import last_query as last_queries
from headscope.attention.masks.block_mask import block_mask
from headscope.attention.masks.last_query import LastQuery
from headscope.attention.masks.runs import Runs, from_dense, intersect, unite
from headscope.errors import MaskError

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

# Numbers that a mask keeps written out, at most: a square of 512.
KEPT = 2**18


class Mask(ABC):
    """Who may attend to whom; made by `causal`, `window`, `padding`, `dense`, … and combined with `&` and `|`."""

    # The last answers: the layers of a model ask the same mask for the same thing, one after the other.
    _cache: tuple[tuple[int, int, torch.device], Runs] | None = None
    _last_query: tuple[tuple[int, torch.device], LastQuery | None] | None = None
    _added: tuple[tuple[int, int, torch.dtype, torch.device], Tensor | None] | None = None
    # Whether it exists as booleans for every query and key, or a part of it does.
    is_written: bool = False

    @abstractmethod
    def _runs(self, q: int, k: int, device: torch.device) -> Runs:
        """The runs of keys for q queries and k keys."""

    def runs(self, q: int, k: int, device: torch.device | str | None = None) -> Runs:
        """The runs of keys that each of `q` queries may see among `k` keys.

        Shapes:
            returns start and stop, each `(b|1, h|1, q|1, r)`, int32.

        Raises:
            MaskError: the mask was made for other sizes.

        Example:
            >>> dense(torch.tensor([[True, True, False]])).runs(1, 3).stop.flatten().tolist()
            [2]
        """
        if q < 0 or k < 0:
            raise MaskError(f"runs: {q} queries and {k} keys; give sizes of at least 0.")
        device = torch.device(device or "cpu")
        if not known() or capturing(device):
            return self._runs(q, k, device)
        # Read once: another thread may ask for other sizes in between.
        key = (q, k, device)
        cached = self._cache
        if cached is None or cached[0] != key:
            # What inference mode makes is of no use outside of it.
            with torch.inference_mode(False):
                cached = self._cache = (key, self._runs(q, k, device))
        return cached[1]

    def to_dense(self, q: int, k: int, device: torch.device | str | None = None) -> Bool[Tensor, "b h q k"]:
        """The mask written out: True where a query may see a key; `(b|1, h|1, q, k)`."""
        block = self.runs(q, k, device).block(slice(0, q), 0, k)
        return block.expand(-1, -1, q, -1)

    def to_additive(
        self, q: int, k: int, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
    ) -> Float[Tensor, "b h q k"]:
        """The mask as numbers to add to the scores: 0 where a query may see a key, minus infinity where not."""
        allowed = self.to_dense(q, k, device)
        return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, -math.inf)

    def added(self, q: int, k: int, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """`to_additive`, kept for the next call; None where it is too large to keep, or its numbers are not known."""
        key = (q, k, dtype, device)
        kept = self._added
        if kept is None or kept[0] != key:
            if not known():
                return None
            numbers = None
            if q * k <= KEPT:
                with torch.inference_mode(False):
                    allowed = self.to_dense(q, k, device)
                    if allowed.numel() <= KEPT and known(allowed):
                        numbers = torch.zeros(allowed.shape, dtype=dtype, device=device)
                        numbers.masked_fill_(~allowed, -math.inf)
            kept = self._added = key, numbers
        return kept[1]

    def last_query(self, k: int, device: torch.device) -> LastQuery | None:
        """What the last query sees of k keys, for calls with one query; None where numbers would have to be waited for.

        Raises:
            MaskError: the mask was made for other sizes.
        """
        key = (k, device)
        kept = self._last_query
        if kept is None or kept[0] != key:
            with torch.inference_mode(False):
                found = self._find_last_query(k, device)
                if found is not None and len(found.ranges) > 1 and not found.gathers:
                    found = masked(found)
            kept = self._last_query = key, found
        return kept[1]

    def _find_last_query(self, k: int, device: torch.device) -> LastQuery | None:
        """`last_query`, from the runs: masks that know it from less do without them."""
        if device.type != "cpu":
            return None
        runs = self.runs(1, k, device)
        if not known(runs.start):
            return None
        ranges, allowed = last_queries.of_runs(runs)
        items, heads = runs.start.shape[:2]
        return LastQuery(ranges, None if allowed is None else Dense(allowed), items, heads)

    def to_block_mask(self, q: int, k: int, device: torch.device | str | None = None) -> BlockMask:
        """The mask as torch's FlexAttention takes it.

        Raises:
            MaskError: the mask was made for other sizes.
        """
        return block_mask(self.runs(q, k, device), q, k)

    def __and__(self, other: Mask) -> Mask:
        return Combined(self, other, both=True)

    def __or__(self, other: Mask) -> Mask:
        return Combined(self, other, both=False)


def masked(seen: LastQuery) -> LastQuery:
    """Several ranges as the one that holds them all, with a mask."""
    start, stop = seen.hull
    allowed = torch.zeros(1, 1, 1, stop - start, dtype=torch.bool)
    for first, last in seen.ranges:
        allowed[..., first - start : last - start] = True
    return replace(seen, ranges=(seen.hull,), among=Dense(allowed))


class Combined(Mask):
    """What both masks allow, or what either allows."""

    def __init__(self, a: Mask, b: Mask, *, both: bool) -> None:
        for side in (a, b):
            if not isinstance(side, Mask):
                raise MaskError(
                    f"&, |: expected a Mask, got {type(side).__name__}; wrap a boolean tensor in hs.dense(...)."
                )
        self.a, self.b, self.both = a, b, both
        self.is_written = a.is_written or b.is_written

    def _runs(self, q: int, k: int, device: torch.device) -> Runs:
        if self.is_written and not known():
            # Each part has as many columns as there might be runs, and their combinations would be the product.
            return from_dense(self.to_dense(q, k, device))
        a, b = self.a.runs(q, k, device), self.b.runs(q, k, device)
        self._agree(a.start, b.start)
        return (intersect if self.both else unite)(a, b)

    def _find_last_query(self, k: int, device: torch.device) -> LastQuery | None:
        """From what the two masks see, where numbers are enough."""
        a, b = self.a.last_query(k, device), self.b.last_query(k, device)
        if a is None or b is None:
            return None
        found = None
        if all(1 in pair or pair[0] == pair[1] for pair in ((a.items, b.items), (a.heads, b.heads))):
            found = (last_queries.intersect if self.both else last_queries.unite)(a, b)
        return super()._find_last_query(k, device) if found is None else found

    def to_dense(self, q: int, k: int, device: torch.device | str | None = None) -> Bool[Tensor, "b h q k"]:
        """What both allow, or either allows, written out."""
        a, b = self.a.to_dense(q, k, device), self.b.to_dense(q, k, device)
        self._agree(a, b)
        return a & b if self.both else a | b

    def _agree(self, a: Tensor, b: Tensor) -> None:
        """Raise `MaskError` unless the two are for the same batch and heads, or for all."""
        for axis, name in enumerate(("batch items", "heads")):
            # Compared one by one: sizes of a traced graph cannot be in a set.
            if a.shape[axis] != 1 and b.shape[axis] != 1 and a.shape[axis] != b.shape[axis]:
                raise MaskError(
                    f"{self!r}: the two masks are for {a.shape[axis]} and {b.shape[axis]} {name}; "
                    "give both the same number, or 1."
                )

    def __repr__(self) -> str:
        return f"({self.a!r} {'&' if self.both else '|'} {self.b!r})"


class Dense(Mask):
    """A boolean mask; its runs are found once."""

    is_written = True

    def __init__(self, allowed: Tensor) -> None:
        self.allowed = allowed
        self._found: Runs | None = None

    def _runs(self, q: int, k: int, device: torch.device) -> Runs:
        self._fits(q, k)
        if not known(self.allowed):
            return from_dense(in_mode(self.allowed)).to(device)
        found = self._found
        if found is None:
            found = self._found = from_dense(self.allowed)
        return found.to(device)

    def _find_last_query(self, k: int, device: torch.device) -> LastQuery | None:
        """From the booleans themselves."""
        self._fits(1, k)
        if device.type != "cpu" or not self.allowed.is_cpu or not known(self.allowed):
            return None
        ranges, everyone = last_queries.of_dense(self.allowed)
        among = None if everyone else self.columns(*ranges[0])
        return LastQuery(ranges, among, *self.allowed.shape[:2])

    def columns(self, first: int, last: int) -> Dense:
        """The same mask for the keys `first … last - 1` alone."""
        return self if (first, last) == (0, self.allowed.shape[3]) else Dense(self.allowed[..., first:last])

    def to_dense(self, q: int, k: int, device: torch.device | str | None = None) -> Bool[Tensor, "b h q k"]:
        """The mask itself, `(b|1, h|1, q, k)`."""
        self._fits(q, k)
        allowed = in_mode(self.allowed).to(device or "cpu")
        if known(allowed) and allowed.is_inference() and not torch.is_inference_mode_enabled():
            # Autograd cannot keep a tensor that inference mode made.
            allowed = allowed.clone()
        return allowed.expand(-1, -1, q, -1)

    def _fits(self, q: int, k: int) -> None:
        rows, columns = self.allowed.shape[2:]
        if rows not in (1, q) or columns != k:
            raise MaskError(
                f"dense: the mask is {tuple(self.allowed.shape)} and was asked for {q} queries x {k} keys; "
                f"its last two axes must be ({q} or 1, {k})."
            )

    def __repr__(self) -> str:
        return f"dense({tuple(self.allowed.shape)})"


class Intervals(Mask):
    """Runs that are known already, for exactly the queries and keys that they were made for."""

    def __init__(self, intervals: Runs, keys: int) -> None:
        self.intervals, self.keys = intervals, keys

    def _runs(self, q: int, k: int, device: torch.device) -> Runs:
        if self.intervals.start.shape[2] not in (1, q) or k != self.keys:
            raise MaskError(f"{self!r}: asked for {q} queries x {k} keys; these runs are only for their own sizes.")
        return Runs(*map(in_mode, self.intervals)).to(device)

    def __repr__(self) -> str:
        return f"runs({self.intervals.start.shape[2]} queries x {self.keys} keys)"


def dense(allowed: Bool[Tensor, "*sizes"]) -> Mask:
    """A boolean mask whose True means that the query may see the key; as the tensor is now, not as it may become.

    Shapes:
        allowed: `(q, k)` or `(b|1, h|1, q|1, k)`, bool.

    Raises:
        MaskError: not boolean, or neither two nor four axes.

    Example:
        >>> dense(torch.tensor([[True, False, True]])).runs(1, 3).start.tolist()
        [[[[0, 2]]]]
    """
    if not isinstance(allowed, Tensor):
        raise MaskError(f"dense: expected a torch.Tensor, got {type(allowed).__name__}; give torch.as_tensor(…).")
    if allowed.dtype != torch.bool:
        raise MaskError(
            f"dense: the mask is {allowed.dtype}; give booleans, True where a query may see a key. "
            "For an additive mask of 0 and -inf use hs.dense(mask == 0)."
        )
    if allowed.ndim not in (2, 4):
        raise MaskError(
            f"dense: the mask is {tuple(allowed.shape)}; give (queries, keys) or "
            "(batch, heads, queries, keys), with 1 where all share it."
        )
    # A copy: its runs and tiles are kept from call to call, and the tensor's owner may write to it in between.
    return Dense((allowed if allowed.ndim == 4 else allowed[None, None]).clone())
