"""What findings, the table of heads and small pictures need of all weights, found in one pass for all of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.attention.request import Request
from headscope.look.axis import Axis
from headscope.look.kernels.ask import Ask, Candidates, Seen
from headscope.look.kernels.stream import stream
from headscope.look.sequences import Sequences
from headscope.look.words import content_of, word_numbers

# Cells along one side of the small picture of a head.
CELLS = 44


def overview(request: Request, queries: Axis, keys: Axis, sequences: Sequences) -> Seen:
    """One pass over the weights of some heads of one batch item, each sequence in one piece, without padding.

    The pictures are of the whole call: where a part of it is left out, there are none.

    Shapes:
        as `Seen` has them, of the queries and keys that count.
    """
    ask = replace(
        spread_of(special_keys(keys, sequences)),
        received=True,
        candidates=candidates(keys, sequences),
        picture=(CELLS, CELLS) if sequences.whole else None,
    )
    return stream(sequences.request(request), ask)


def spread_of(special: Bool[Tensor, " k"]) -> Ask:
    """What the table of heads needs: how the weights of every query are spread."""
    return Ask(entropy=True, concentration=True, peak=True, leave_out=special.nonzero()[:, 0])


def special_keys(keys: Axis, sequences: Sequences) -> Bool[Tensor, " k"]:
    """The keys that count and are not content: [CLS], [SEP], a class token."""
    return torch.tensor(keys.special, dtype=torch.bool)[sequences.keys]


def candidates(keys: Axis, sequences: Sequences) -> Candidates:
    """The keys that can make a pair with a query: content, neither a neighbour nor of the same word."""
    content = content_of(keys)[sequences.keys]
    if sequences.own is None:
        none = torch.zeros(len(sequences.rows), dtype=torch.int64)
        return Candidates(content, none, none)
    words = word_numbers(keys)[sequences.keys]
    numbers, sizes = torch.unique_consecutive(words, return_inverse=True, return_counts=True)[1:]
    ends = sizes.cumsum(0)
    own, number = sequences.own, numbers[sequences.own]
    start = torch.minimum((ends - sizes)[number], own - 1)
    stop = torch.maximum(ends[number], own + 2)
    return Candidates(content, start.clamp(min=0), stop.clamp(max=len(words)))
