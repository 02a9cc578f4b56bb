"""Masks by lengths: padded batches, packed documents, and first keys that everyone sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headscope.attention.known import in_mode, known, written
from headscope.attention.masks.last_query import LastQuery, of_lengths
from headscope.attention.masks.mask import Dense, Mask
from headscope.attention.masks.runs import Runs, trim
from headscope.attention.masks.window import causal
from headscope.errors import MaskError

Lengths = int | Sequence[int] | Sequence[Sequence[int]] | Tensor


class Padding(Mask):
    """The first keys of each sequence, for the first queries of each sequence."""

    _lengths: LastQuery | None = None

    def __init__(self, keys: Tensor, queries: Tensor | None) -> None:
        self.keys, self.queries = keys, queries

    def _runs(self, q: int, k: int, device: torch.device) -> Runs:
        keys = within("padding", "key_lengths", in_mode(self.keys), k, "keys").to(device)[:, None, None, None]
        if self.queries is None:
            return Runs(torch.zeros_like(keys), keys)
        queries = within("padding", "query_lengths", in_mode(self.queries), q, "queries").to(device)
        real = torch.arange(q, device=device, dtype=torch.int32)[None, None, :, None] < queries[:, None, None, None]
        stop = torch.where(real, keys, 0).int()
        return Runs(torch.zeros_like(stop), stop)

    def _find_last_query(self, k: int, device: torch.device) -> LastQuery | None:
        """From the lengths, which are the same for any number of keys."""
        if self.queries is not None or not self.keys.is_cpu or not known(self.keys):
            return super()._find_last_query(k, device)
        within("padding", "key_lengths", self.keys, k, "keys")
        if self._lengths is None:
            self._lengths = from_lengths(self.keys, k)
        return self._lengths if device.type == "cpu" or self._lengths.among is None else None

    def __repr__(self) -> str:
        return f"padding({written(self.keys)}{'' if self.queries is None else f', {written(self.queries)}'})"


class Documents(Mask):
    """Consecutive documents; the queries of each see the keys of the same one."""

    def __init__(self, queries: Tensor, keys: Tensor) -> None:
        self.queries, self.keys = queries, keys

    def _runs(self, q: int, k: int, device: torch.device) -> Runs:
        self._add_up(self.queries, "lengths", q, "queries")
        self._add_up(self.keys, "key_lengths", k, "keys")
        queries, keys = in_mode(self.queries).to(device), in_mode(self.keys).to(device)
        # A document begins where the ones before it end: one step for each end, summed along the queries.
        ends = queries.cumsum(-1).clamp(0, q)
        steps = torch.zeros(len(queries), q + 1, dtype=torch.int64, device=device)
        document = steps.scatter_add(-1, ends, torch.ones_like(ends)).cumsum(-1)[:, :q]
        document = document.clamp(max=queries.shape[-1] - 1)
        stop = keys.cumsum(-1).clamp(0, k).gather(-1, document)
        start = stop - keys.gather(-1, document)
        return trim(start[:, None, :, None], stop[:, None, :, None])

    @staticmethod
    def _add_up(lengths: Tensor, name: str, count: int, things: str) -> None:
        """Raise `MaskError` unless the lengths, where they are known, add up."""
        if known(lengths) and (lengths.sum(-1) != count).any():
            sums = sorted(set(lengths.sum(-1).tolist()))
            raise MaskError(
                f"documents: {name} add up to {sums} and there are {count} {things}; they must add up to {count}."
            )

    def __repr__(self) -> str:
        return f"documents({written(self.queries)}{'' if self.keys is self.queries else f', {written(self.keys)}'})"


class First(Mask):
    """The first keys, for every query."""

    def __init__(self, counts: Tensor) -> None:
        self.counts = counts

    def _runs(self, q: int, k: int, device: torch.device) -> Runs:
        stop = in_mode(self.counts).to(device).clamp(max=k)[:, None, None, None]
        return Runs(torch.zeros_like(stop), stop)

    def _find_last_query(self, k: int, device: torch.device) -> LastQuery | None:
        """From the counts."""
        if not self.counts.is_cpu or not known(self.counts):
            return super()._find_last_query(k, device)
        found = from_lengths(self.counts, k)
        return found if device.type == "cpu" or found.among is None else None

    def __repr__(self) -> str:
        return f"first({written(self.counts)})"


def padding(key_lengths: Lengths, query_lengths: Lengths | None = None) -> Mask:
    """Each query of sequence `i` sees the first `key_lengths[i]` keys, queries past `query_lengths[i]` see nothing.

    Shapes:
        key_lengths, query_lengths: `(b,)` integers.

    Raises:
        MaskError: negative lengths, not one axis, or two different numbers of sequences.

    Example:
        >>> padding([1, 3]).to_dense(1, 3).int().squeeze().tolist()
        [[1, 0, 0], [1, 1, 1]]
    """
    keys = as_lengths("padding", "key_lengths", key_lengths)
    queries = None if query_lengths is None else as_lengths("padding", "query_lengths", query_lengths)
    if queries is not None and len(queries) != len(keys):
        raise MaskError(
            f"padding: {len(keys)} key_lengths and {len(queries)} query_lengths; give one of each for every sequence."
        )
    return Padding(keys, queries)


def documents(lengths: Lengths, key_lengths: Lengths | None = None) -> Mask:
    """Packed sequences: the queries of each document see the keys of the same document.

    `hs.causal() & hs.documents(lengths)` is packed causal attention.

    Args:
        lengths: how many queries each document has; they must add up to all queries.
        key_lengths: how many keys each document has, where that differs.

    Shapes:
        lengths, key_lengths: `(documents,)`, or `(b, documents)` where every batch item is packed differently.

    Raises:
        MaskError: negative lengths, two different numbers of documents, or (when used) lengths that do not add up.

    Example:
        >>> documents([1, 2]).to_dense(3, 3).int().squeeze().tolist()
        [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    """
    queries = as_lengths("documents", "lengths", lengths, axes=2)
    keys = queries if key_lengths is None else as_lengths("documents", "key_lengths", key_lengths, axes=2)
    if keys.shape != queries.shape:
        raise MaskError(
            f"documents: lengths are {tuple(queries.shape)} and key_lengths {tuple(keys.shape)}; "
            "give both for every document."
        )
    return Documents(queries, keys)


def first(n: int | Sequence[int] | Tensor) -> Mask:
    """Everyone sees the first `n` keys: kept sink tokens, or global ones. One number, or one for each batch item.

    Source: the kept first tokens of Xiao et al. 2023 (attention sinks).

    Example:
        >>> from headscope.attention.masks.window import window
        >>> (first(1) | window(0)).to_dense(3, 3).int().squeeze().tolist()
        [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
    """
    return First(as_lengths("first", "n", n))


def prefix(n: int | Sequence[int] | Tensor) -> Mask:
    """Causal, but the first `n` keys are seen by everyone: the prefix language model.

    One number, or one for each batch item.

    Source: Raffel et al. 2020 (T5), §3.2.1.

    Example:
        >>> prefix(2).to_dense(3, 3).int().squeeze().tolist()
        [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    """
    return causal() | First(as_lengths("prefix", "n", n))


def as_lengths(where: str, name: str, lengths: Lengths, axes: int = 1) -> Tensor:
    """Lengths as int32, checked; with two axes allowed, always as two."""
    # Python's numbers stay readable, also where the default device is "meta".
    device = lengths.device if isinstance(lengths, Tensor) else "cpu"
    tensor = torch.as_tensor(lengths, device=device)
    if not tensor.numel() and not isinstance(lengths, Tensor):
        # An empty list has no dtype of its own.
        tensor = tensor.long()
    if tensor.ndim == 0:
        tensor = tensor[None]
    if tensor.ndim == 1 and axes == 2:
        tensor = tensor[None]
    if tensor.ndim != axes or tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise MaskError(
            f"{where}: {name} is {tuple(tensor.shape)} {tensor.dtype}; give one integer for every sequence."
        )
    if known(tensor) and tensor.numel() and int(tensor.min()) < 0:
        raise MaskError(f"{where}: {name} holds {int(tensor.min())}; lengths are 0 or more.")
    # A copy: what a mask says must not change with a tensor that its owner uses again.
    return tensor.to(torch.int32, copy=True)


def from_lengths(lengths: Tensor, keys: int) -> LastQuery:
    """What a query sees that sees the first keys of its item."""
    ranges, allowed = of_lengths(lengths, keys)
    return LastQuery(ranges, None if allowed is None else Dense(allowed), len(lengths))


def within(where: str, name: str, lengths: Tensor, limit: int, things: str) -> Tensor:
    """Lengths that are at most what there is.

    Raises:
        MaskError: a length is more than that. Where numbers are not known, such a length means all there is.
    """
    if not known(lengths):
        return lengths.clamp(0, limit)
    if lengths.numel() and int(lengths.max()) > limit:
        raise MaskError(
            f"{where}: {name} holds {int(lengths.max())} and there are {limit} {things}; "
            f"give lengths of at most {limit}."
        )
    return lengths
