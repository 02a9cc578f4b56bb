"""Looks at copies of a token: duplicates, and what came after them (induction)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from headscope.errors import LookError
from headscope.look.axis import Axis
from headscope.look.placeholders import placeholders
from headscope.look.sequences import Sequences

# Weights that are looked at together.
BLOCK = 2**22


class Places(NamedTuple):
    """What makes two tokens the same for each query and key, and where each query stands among the keys."""

    queries: Sequence[Hashable]
    keys: Sequence[Hashable]
    own: Int64[Tensor, " q"]


def places(queries: Axis, keys: Axis, sequences: Sequences) -> Places:
    """The tokens that count, each the same only as those of its own sequence.

    Raises:
        LookError: the positions are not tokens.
    """
    asking, asked = identities(queries), identities(keys)
    rows, columns = sequences.rows.tolist(), sequences.keys.tolist()
    own = sequences.own
    return Places(
        [(number, asking[i]) for number, i in zip(sequences.row_numbers.tolist(), rows, strict=True)],
        [(number, asked[j]) for number, j in zip(sequences.key_numbers.tolist(), columns, strict=True)],
        torch.arange(len(rows)) + len(columns) - len(rows) if own is None else own,
    )


def mass(weights: Callable[[Tensor, Tensor], Tensor], places: Places, like: Tensor, *, after: int) -> Tensor:
    """The weight of every query on the keys that stand `after` places behind an earlier copy of its token.

    Only queries and keys of the same token meet: the cost is the sum of the squares of the tokens' counts.

    Args:
        weights: gives the weights of some queries on some keys.
        like: a tensor of the shape, dtype and device of the result, `(…, q)`.
    """
    queries, keys, own = places
    if like.numel() * len(keys) <= BLOCK:
        # Few enough for all weights at once: one call instead of one for each token that repeats.
        every = weights(torch.arange(len(queries)), torch.arange(len(keys)))
        return (every * meeting(places, after).to(every.device)).sum(-1)
    found = torch.zeros_like(like)
    for rows, copies in pairs(places):
        columns = copies + after
        columns = columns[columns < len(keys)]
        step = max(1, BLOCK // max(1, len(columns)))
        for some in torch.split(rows, step):
            # The copy is earlier than the query; what came after it is the query itself at the latest.
            earlier = (columns - after < own[some][:, None]).to(found.device)
            found[..., some.to(found.device)] = (weights(some, columns) * earlier).sum(-1)
    return found


def meeting(places: Places, after: int) -> Bool[Tensor, "q k"]:
    """Which keys stand `after` places behind an earlier copy of which query's token, written out."""
    queries, keys, own = places
    numbers: dict[Hashable, int] = {}
    asking, asked = (torch.tensor([numbers.setdefault(t, len(numbers)) for t in side]) for side in (queries, keys))
    earlier = torch.arange(len(keys)) < own[:, None]
    same = torch.zeros(len(queries), len(keys), dtype=torch.bool)
    same[:, after:] = ((asking[:, None] == asked) & earlier)[:, : len(keys) - after]
    return same


def has_copy(places: Places) -> Bool[Tensor, " q"]:
    """Which queries have an earlier copy of their token."""
    first: dict[Hashable, int] = {}
    for position, token in enumerate(places.keys):
        first.setdefault(token, position)
    queries = zip(places.queries, places.own.tolist(), strict=True)
    return torch.tensor([first.get(token, len(places.keys)) < own for token, own in queries], dtype=torch.bool)


def pairs(places: Places) -> list[tuple[Tensor, Tensor]]:
    """For every token that is among the queries and earlier among the keys: its queries and its keys."""
    where: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, tokens in enumerate((places.queries, places.keys)):
        for position, token in enumerate(tokens):
            where[token][side].append(position)
    own = places.own.tolist()
    found = [(rows, keys) for rows, keys in where.values() if rows and keys and keys[0] < own[rows[-1]]]
    return [(torch.tensor(rows), torch.tensor(keys)) for rows, keys in found]


def identities(axis: Axis) -> list[Hashable]:
    """What makes two tokens the same: their ids, or their texts where ids are not known.

    A token that stands for a patch of a picture or a moment of a sound is the same as no other.

    Raises:
        LookError: the positions are not tokens.
    """
    if axis.kind != "tokens":
        raise LookError(
            f"duplicates, induction: the positions of this head are {axis.kind}, not tokens; give their tokens with "
            "recording.tokens(...), or queries=hs.Axis.tokens(...)."
        )
    found: Sequence[Hashable] = axis.ids if axis.ids is not None else axis.labels
    return [object() if apart else token for token, apart in zip(found, placeholders(axis).tolist(), strict=True)]
