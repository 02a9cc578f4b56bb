"""Torch's `varlen_attn` on padded and packed batches, for `gpu.py`: its cumulative lengths, made on the device.

No number is read into Python: the longest sequence is given as the bound that is known, the length of the batch. Keys
that nobody may see, the padding, are a sequence of their own with no queries.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


class Sequences(NamedTuple):
    """Where each sequence begins among all queries and all keys of a batch: `(sequences + 1,)`, int32."""

    queries: Tensor
    keys: Tensor


def beginnings(lengths: Tensor) -> Tensor:
    """The sums of lengths, from 0 on."""
    return pad(lengths.flatten().cumsum(0), (1, 0)).int()


def of_documents(lengths: Tensor, batch: int) -> Sequences:
    """Packed documents, `(b|1, documents)`, that fill each row of the batch."""
    found = beginnings(lengths.expand(batch, -1))
    return Sequences(found, found)


def of_padding(lengths: Tensor, n: int) -> Sequences:
    """Rows of n queries on their first keys, `(b,)`."""
    queries = torch.tensor([n, 0], device=lengths.device).expand(len(lengths), 2)
    return Sequences(beginnings(queries), beginnings(torch.stack([lengths, n - lengths], -1)))


def attend(sequences: Sequences, causal: bool, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Values `(b, h, n, d)` of as many queries as keys."""
    from torch.nn.attention.varlen import varlen_attn

    b, h, n, d = q.shape
    rows = [x.transpose(1, 2).reshape(b * n, -1, d) for x in (q, k, v)]
    options: dict[str, Any] = {}
    if causal:
        # The name has changed with the versions of torch.
        windows = "window_size" in inspect.signature(varlen_attn).parameters
        options = {"window_size": (-1, 0)} if windows else {"is_causal": True}
    arguments: list[Any] = [*rows, *sequences, n, n]
    values: Any = varlen_attn(*arguments, **options)
    found: Tensor = values.view(b, n, h, d).transpose(1, 2)
    return found
