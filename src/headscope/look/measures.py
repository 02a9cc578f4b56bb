"""What every head of a layer does, in a few numbers: sums over queries and how many, so that texts can be added up.

A measure is one function and its row in `MEASURES`: it then is a column of the table of heads, wherever that is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from headscope.attention.request import Request
from headscope.look import copies, statistics
from headscope.look.axis import Axis
from headscope.look.kernels.ask import Seen
from headscope.look.kernels.diagonals import band_sums
from headscope.look.kernels.gather import chosen
from headscope.look.kernels.stream import stream
from headscope.look.overview import special_keys, spread_of
from headscope.look.sequences import Sequences, sequences_of


class Mean(NamedTuple):
    """A mean before the division: the sum over the queries for every head, `(h,)`, and over how many queries."""

    sums: Float[Tensor, " h"]
    queries: float


Sums = dict[str, Mean]


class Content:
    """The heads of one layer and batch item as a measure sees them: each sequence in one piece, without padding.

    Attributes:
        request: the call; `queries` and `keys` are what its positions are, `sequences` where each sequence is.
    """

    def __init__(
        self, request: Request, queries: Axis, keys: Axis, sequences: Sequences, seen: Seen | None = None
    ) -> None:
        self.request = sequences.request(request)
        self.queries, self.keys, self.sequences, self._seen = queries, keys, sequences, seen

    @cached_property
    def seen(self) -> Seen:
        """One pass over the weights: lse, entropy, concentration and peak of every query; made already, or now."""
        return stream(self.request, spread_of(self.special_keys)) if self._seen is None else self._seen

    @cached_property
    def neighbours(self) -> tuple[Float[Tensor, "h offsets"], Int64[Tensor, " offsets"]]:
        """The sums of the weights on the key before, at and after the own position, and over how many queries."""
        sums, counts = band_sums(self.request, 1, self.seen.lse, self.sequences)
        return sums[0], counts

    @cached_property
    def places(self) -> copies.Places:
        """Which tokens are the same."""
        return copies.places(self.queries, self.keys, self.sequences)

    @cached_property
    def special_keys(self) -> Bool[Tensor, " k"]:
        """The keys that are not content: [CLS], [SEP], a class token."""
        return special_keys(self.keys, self.sequences)

    @cached_property
    def special_queries(self) -> Bool[Tensor, " q"]:
        """The queries that are not content."""
        return torch.tensor(self.queries.special, dtype=torch.bool)[self.sequences.rows]

    def weight_on(self, keys: Bool[Tensor, " k"]) -> Float[Tensor, "h q"]:
        """The weight of every query on some keys together."""
        if int(keys.sum()) == 1:
            rows = torch.arange(self.request.q.shape[2])
            return chosen(self.request, self.seen.lse, rows, keys.nonzero()[:, 0])[0, ..., 0]
        return statistics.project(self.request, keys[:, None].float())[0, ..., 0]

    def mean(self, found: Float[Tensor, "h q"], counted: Bool[Tensor, " q"] | None = None) -> Mean:
        """The mean over the queries that count; all of them unless chosen."""
        found = found.double().cpu()
        if counted is None:
            return Mean(found.sum(-1), float(found.shape[1]))
        return Mean(torch.where(counted, found, 0.0).sum(-1), float(counted.sum()))


class Measure(NamedTuple):
    """A column of the table of heads.

    Attributes:
        text: what the measure is the mean of.
        of: finds it; None where it means nothing, such as the previous position between two texts.
    """

    text: str
    of: Callable[[Content], Mean | None]


def entropy(content: Content) -> Mean:
    """`-Σ_j p_ij log p_ij`; Clark et al. 2019."""
    return content.mean(statistics.there(content.seen.entropy)[0])


def concentration(content: Content) -> Mean:
    """`Σ_j p_ij²`, the participation ratio."""
    return content.mean(statistics.there(content.seen.concentration)[0])


def confidence(content: Content) -> Mean:
    """The largest weight; Voita et al. 2019."""
    return content.mean(statistics.there(content.seen.peak)[0], ~content.special_queries)


def previous(content: Content) -> Mean | None:
    """`p_{i,i-1}`; Clark et al. 2019."""
    return neighbour(content, -1)


def own(content: Content) -> Mean | None:
    """`p_{i,i}`."""
    return neighbour(content, 0)


def following(content: Content) -> Mean | None:
    """`p_{i,i+1}`; Clark et al. 2019."""
    return neighbour(content, 1)


def neighbour(content: Content, offset: int) -> Mean | None:
    """The weight at one offset, over the queries that have a key there."""
    if not content.sequences.same:
        return None
    sums, counts = content.neighbours
    return Mean(sums[:, offset + 1].double().cpu(), float(counts[offset + 1]))


def first(content: Content) -> Mean | None:
    """The weight on the key that a query's sequence begins with; Xiao et al. 2023."""
    return content.mean(content.weight_on(content.sequences.first)) if content.request.k.shape[2] else None


def special(content: Content) -> Mean | None:
    """The weight on all special keys together; Clark et al. 2019."""
    return None if content.keys.kind == "positions" else content.mean(content.weight_on(content.special_keys))


def duplicate(content: Content) -> Mean | None:
    """The weight on earlier copies; Wang et al. 2022."""
    return copied(content, 0)


def induction(content: Content) -> Mean | None:
    """The weight on what came after earlier copies; Olsson et al. 2022."""
    return copied(content, 1)


def copied(content: Content, after: int) -> Mean | None:
    """The weight on keys `after` places behind earlier copies, over the queries that have one."""
    if not (content.sequences.same and content.keys.kind == "tokens"):
        return None
    repeated = copies.has_copy(content.places)
    if not repeated.any():
        return Mean(torch.zeros(content.request.q.shape[1], dtype=torch.float64), 0.0)
    request, lse = content.request, content.seen.lse
    mass = copies.mass(lambda r, c: chosen(request, lse, r, c)[0], content.places, lse[0], after=after)
    return content.mean(mass, repeated)


# The columns of the table of heads, each the mean over the queries of what its text says.
MEASURES = {
    "entropy": Measure("-Σ p log p of a query, in nats", entropy),
    "concentration": Measure("Σ p² of a query", concentration),
    "confidence": Measure("the largest weight of a query, special queries and keys left out", confidence),
    "previous": Measure("the weight on the key before the own position", previous),
    "self": Measure("the weight on the own position", own),
    "next": Measure("the weight on the key after the own position", following),
    "first": Measure("the weight on the first key", first),
    "special": Measure("the weight on special keys", special),
    "duplicate": Measure("the weight on earlier copies of the own token, where there are any", duplicate),
    "induction": Measure("the weight on what came after them", induction),
}


def measures(
    request: Request, queries: Axis, keys: Axis, sequences: Sequences | None = None, seen: Seen | None = None
) -> Sums:
    """For each measure its mean over the queries for every head, as sums that can be added up.

    Padding is left out, and "previous", "next" and "first" are those of each sequence. A measure that means nothing
    here (an offset between two texts, copies of patches) is left out as well, and all are where no query counts.

    Args:
        request: one batch item, all heads of a layer.
        sequences: those of the item, where they are known already.
        seen: the `overview` of the item, where it was made already.
    """
    if sequences is None:
        sequences = sequences_of(request.runs(), queries, keys)
    if not len(sequences.rows):
        return {}
    with torch.no_grad():
        content = Content(request, queries, keys, sequences, seen)
        found = {name: measure.of(content) for name, measure in MEASURES.items()}
    return {name: mean for name, mean in found.items() if mean is not None}
