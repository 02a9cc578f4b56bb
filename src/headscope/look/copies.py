"""Looks at copies of a token: duplicates, and what came after them (induction)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from headscope.errors import LookError
from headscope.look.axis import Axis

# Weights that are looked at together.
BLOCK = 2**22


def mass(
    weights: Callable[[Tensor, Tensor], Tensor],
    queries: list[int | str],
    keys: list[int | str],
    like: Tensor,
    *,
    after: int,
) -> Tensor:
    """The weight of every query on the keys that stand `after` places behind an earlier copy of its token.

    Only queries and keys of the same token meet: the cost is the sum of the squares of the tokens' counts.

    Args:
        weights: gives the weights of some queries on some keys.
        queries, keys: what makes two tokens the same, for each position.
        like: a tensor of the shape, dtype and device of the result, `(…, q)`.
    """
    shift = len(keys) - len(queries)
    if like.numel() * len(keys) <= BLOCK:
        # Few enough for all weights at once: one call instead of one for each token that repeats.
        every = weights(torch.arange(len(queries)), torch.arange(len(keys)))
        return (every * meeting(queries, keys, after).to(every.device)).sum(-1)
    found = torch.zeros_like(like)
    for rows, copies in pairs(queries, keys):
        columns = copies + after
        columns = columns[columns < len(keys)]
        step = max(1, BLOCK // max(1, len(columns)))
        for some in torch.split(rows, step):
            own = some[:, None] + shift
            # The copy is earlier than the query; what came after it is the query itself at the latest.
            earlier = (columns - after < own).to(found.device)
            found[..., some.to(found.device)] = (weights(some, columns) * earlier).sum(-1)
    return found


def meeting(queries: list[int | str], keys: list[int | str], after: int) -> Tensor:
    """Which keys stand `after` places behind an earlier copy of which query's token, written out: `(q, k)`."""
    numbers: dict[int | str, int] = {}
    own, other = (torch.tensor([numbers.setdefault(t, len(numbers)) for t in side]) for side in (queries, keys))
    place = torch.arange(len(keys))
    earlier = place < torch.arange(len(queries))[:, None] + len(keys) - len(queries)
    same = torch.zeros(len(queries), len(keys), dtype=torch.bool)
    same[:, after:] = ((own[:, None] == other) & earlier)[:, : len(keys) - after]
    return same


def has_copy(queries: list[int | str], keys: list[int | str]) -> Tensor:
    """Which queries have an earlier copy of their token."""
    shift = len(keys) - len(queries)
    first: dict[int | str, int] = {}
    for position, token in enumerate(keys):
        first.setdefault(token, position)
    own = enumerate(queries)
    return torch.tensor([first.get(token, len(keys)) < place + shift for place, token in own], dtype=torch.bool)


def pairs(queries: list[int | str], keys: list[int | str]) -> list[tuple[Tensor, Tensor]]:
    """For every token that is among the queries and earlier among the keys: its queries and its keys."""
    shift = len(keys) - len(queries)
    where: dict[int | str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, tokens in enumerate((queries, keys)):
        for position, token in enumerate(tokens):
            where[token][side].append(position)
    found = [(rows, columns) for rows, columns in where.values() if rows and columns and columns[0] < rows[-1] + shift]
    return [(torch.tensor(rows), torch.tensor(columns)) for rows, columns in found]


def identities(axis: Axis) -> list[int | str]:
    """What makes two tokens the same: their ids, or their texts where ids are not known.

    Raises:
        LookError: the positions are no tokens.
    """
    if axis.kind != "tokens":
        raise LookError(
            f"duplicates, induction: the positions of this head are {axis.kind}, not tokens; say what they are with "
            "recording.tokens(...), or queries=hs.Axis.tokens(...)."
        )
    return list(axis.ids if axis.ids is not None else axis.labels)
