"""What is measured of one head before anything is said about it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from headscope.attention.request import Request
from headscope.look.axis import Axis
from headscope.look.copies import has_copy, identities
from headscope.look.head import Head
from headscope.look.kernels.diagonals import band_sums
from headscope.look.kernels.stream import Ask, Seen, stream
from headscope.look.real import real_rows, same_positions

# The largest distance of an offset that is measured.
FAR = 16
# Pairs of tokens that are kept of one head.
PAIRS = 2
# Weights that are looked at together.
BLOCK = 2**20


@dataclass(frozen=True)
class Pair:
    """A query that puts much of its weight on one key, and the next key of the same sort, if there is one."""

    query: int
    key: int
    weight: float
    next_key: int | None
    next_weight: float


@dataclass
class Evidence:
    """The measures of one head that the findings rest on. Rows of padding are left out of every mean.

    Attributes:
        same: whether queries and keys are the same positions, so that "previous" means something.
        rows: how many queries count.
        offsets: the mean weight at each offset that half of the queries or more have a key at.
        received: the mean weight on each key, `(k,)`.
        special, punctuation: the mean weight on all special keys, and on all tokens of punctuation.
        entropy: the mean entropy, as a share of what equal weights would have.
        stability: `Σ_j m_j² / mean_i Σ_j p_ij²` with m the mean row: 1 when all rows are the same.
        duplicate, induction: the mean weight on earlier copies of the own token, and on what came after them.
        copies: how many queries have an earlier copy of their token.
        pairs: the queries of content with the heaviest keys of content, heaviest first.
    """

    layer: int
    number: int
    head: Head
    same: bool
    rows: int
    received: Tensor
    offsets: dict[int, float] = field(default_factory=dict)
    special: float = 0.0
    punctuation: float = 0.0
    entropy: float = 0.0
    stability: float = 0.0
    duplicate: float = 0.0
    induction: float = 0.0
    copies: int = 0
    pairs: list[Pair] = field(default_factory=list)

    @property
    def first(self) -> float:
        """The mean weight on the first key."""
        return float(self.received[0])

    def heaviest(self, among: Tensor) -> tuple[int, float]:
        """Of some keys the one with the most weight, and its mean weight."""
        key = int(self.received.masked_fill(~among, -1.0).argmax())
        return key, float(self.received[key])


def measure(layer: int, number: int, head: Head) -> Evidence:
    """All measures of one head."""
    q, k = head._wide
    request = Request(q, k, k, **head._options)
    same = same_positions(head.queries, head.keys)
    rows = real_rows(request.runs(), len(head.q), len(head.k), same)
    count = max(1, int(rows.sum()))
    seen = stream(request, Ask(entropy=True, concentration=True, mix=rows[None].to(q)))
    assert seen.mixed is not None
    found = Evidence(layer, number, head, same, int(rows.sum()), seen.mixed[0, 0, 0].cpu().float() / count)
    special = torch.tensor(head.keys.special, dtype=torch.bool)
    found.special = float(found.received[special].sum())
    found.punctuation = float(found.received[~content_of(head.keys) & ~special].sum())
    spread(found, seen, head, rows)
    if same:
        sums, counts = band_sums(request, FAR, seen.lse, rows)
        means = (sums / counts.clamp(min=1))[0, 0].tolist()
        # An offset that only some queries have says more about their one key, such as a sink.
        common = (2 * counts >= found.rows).tolist()
        every = zip(range(-FAR, FAR + 1), means, common, strict=True)
        found.offsets = {offset: mean for offset, mean, often in every if often}
        if head.keys.kind == "tokens":
            repeats(found, head, rows)
    found.pairs = heaviest_pairs(head, same, rows)
    return found


def spread(found: Evidence, seen: Seen, head: Head, rows: Tensor) -> None:
    """How even the weights are, and how alike the rows."""
    assert seen.entropy is not None
    assert seen.concentration is not None
    start, stop = head.runs
    visible = (stop - start).sum(-1).cpu()[rows].float()
    even = visible.clamp(min=1).log().sum()
    found.entropy = float(seen.entropy[0, 0].cpu()[rows].sum() / even) if even > 0 else 0.0
    sharp = float(seen.concentration[0, 0].cpu()[rows].mean()) if found.rows else 0.0
    found.stability = float(found.received.square().sum()) / sharp if sharp else 0.0


def repeats(found: Evidence, head: Head, rows: Tensor) -> None:
    """Weights on earlier copies of the own token, and on what came after them."""
    repeated = has_copy(identities(head.queries), identities(head.keys)) & rows
    found.copies = int(repeated.sum())
    if found.copies:
        found.duplicate = float(head.duplicates().cpu()[repeated].mean())
        found.induction = float(head.induction().cpu()[repeated].mean())


def heaviest_pairs(head: Head, same: bool, rows: Tensor) -> list[Pair]:
    """The heaviest pairs of content that are neither neighbours nor of one word, each with its runner-up."""
    content, asking = content_of(head.keys), content_of(head.queries) & rows
    word_q, word_k = words(head.queries), words(head.keys)
    best, where = torch.zeros(len(head.q), 2), torch.zeros(len(head.q), 2, dtype=torch.int64)
    own = torch.arange(len(head.q)) + len(head.k) - len(head.q)
    n = min(2, len(head.k))
    for block, weights in blocks(head):
        weights = weights.cpu().float() * content * asking[block, None]
        if same:
            near = (own[block, None] - torch.arange(len(head.k))).abs() <= 1
            weights = weights.masked_fill_(near | (word_q[block, None] == word_k), 0.0)
        best[block, :n], where[block, :n] = weights.topk(n, dim=1)
    return as_pairs(best, where)


def as_pairs(best: Tensor, where: Tensor) -> list[Pair]:
    """The heaviest of the two heaviest keys of every query, as pairs in falling order of weight."""
    found = []
    for query in best[:, 0].argsort(descending=True, stable=True)[:PAIRS].tolist():
        weight, second = best[query].tolist()
        if weight <= 0.0:
            break
        key, next_key = where[query].tolist()
        found.append(Pair(query, key, weight, next_key if second > 0.0 else None, second))
    return found


@functools.lru_cache(64)  # all heads of a layer, and mostly of a model, have the same axes
def content_of(axis: Axis) -> Bool[Tensor, " n"]:
    """The positions that are content: not special, and for tokens with a letter or a digit in them."""
    spoken = [axis.kind != "tokens" or any(letter.isalnum() for letter in label) for label in axis.labels]
    return torch.tensor(spoken, dtype=torch.bool) & ~torch.tensor(axis.special, dtype=torch.bool)


@functools.lru_cache(64)
def words(axis: Axis) -> Int64[Tensor, " n"]:
    """A number for the word of every position: tokens that touch in the text, or continue with ##, are one word."""
    numbers, number = [], -1
    for i in range(axis.length):
        before, here = (axis.spans[i - 1], axis.spans[i]) if axis.spans is not None and i else (None, None)
        touches = before is not None and here is not None and before[1] == here[0] and here[0] < here[1]
        if not (touches and i) and not (i and axis.kind == "tokens" and axis.labels[i].startswith("##")):
            number += 1
        numbers.append(number)
    return torch.tensor(numbers, dtype=torch.int64)


def blocks(head: Head) -> Iterator[tuple[slice, Tensor]]:
    """The weights of a head, a block of whole rows at a time."""
    step = max(1, BLOCK // max(1, len(head.k)))
    for first in range(0, len(head.q), step):
        rows = slice(first, min(first + step, len(head.q)))
        yield rows, head.weights(rows)
