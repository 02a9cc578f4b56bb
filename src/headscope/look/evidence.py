"""What is measured of one head before anything is said about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.attention.request import Request
from headscope.look.copies import has_copy, places
from headscope.look.head import Head
from headscope.look.kernels.ask import Seen
from headscope.look.kernels.diagonals import band_sums
from headscope.look.overview import candidates
from headscope.look.sequences import Sequences
from headscope.look.statistics import there
from headscope.look.words import content_of

# The largest distance of an offset that is measured.
FAR = 16
# Pairs of tokens that are kept of one head.
PAIRS = 2
# Queries whose weights are looked at again, one by one: those with the heaviest candidates.
AGAIN = 64


@dataclass(frozen=True)
class Pair:
    """A query that puts much of its weight on one key, and the next key of the same sort, if there is one.

    `distance` counts positions of their sequence; it is 0 between two texts.
    """

    query: int
    key: int
    weight: float
    next_key: int | None
    next_weight: float
    distance: int = 0


@dataclass
class Evidence:
    """The measures of one head that the findings rest on; padding is left out, and each sequence is by itself.

    Attributes:
        same: whether queries and keys are the same positions, so that "previous" means something.
        rows: how many queries count.
        longest, keys: how many queries and how many keys the longest sequence has.
        even: what equal weights would put on one key, in the mean over the queries.
        offsets: the mean weight at each offset that half of the queries or more have a key at.
        received: for each key the mean weight on it over the queries of its sequence, `(k,)`; 0 for padding.
        first: the mean weight on the first key, and whether that is a special token.
        special, punctuation: the mean weight on all special keys, and on all tokens of punctuation.
        even_special, even_delimiters: what equal weights would put on special keys, and on these and punctuation.
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
    keys: int
    received: Tensor
    longest: int = 0
    even: float = 0.0
    offsets: dict[int, float] = field(default_factory=dict)
    first: float = 0.0
    first_is_special: bool = False
    special: float = 0.0
    punctuation: float = 0.0
    even_special: float = 0.0
    even_delimiters: float = 0.0
    entropy: float = 0.0
    stability: float = 0.0
    duplicate: float = 0.0
    induction: float = 0.0
    copies: int = 0
    pairs: list[Pair] = field(default_factory=list)

    def heaviest(self, among: Tensor) -> tuple[int, float]:
        """Of some keys the one with the most weight, and its mean weight."""
        key = int(self.received.masked_fill(~among, -1.0).argmax())
        return key, float(self.received[key])


def measure(layer: int, number: int, head: Head) -> Evidence:
    """All measures of one head."""
    sequences = head.sequences
    found = Evidence(layer, number, head, sequences.same, len(sequences.rows), 0, torch.zeros(head.keys.length))
    if not found.rows:
        return found
    request = sequences.request(head.call)
    seen = head.overview
    shares(found, there(seen.received)[0, 0].cpu().float(), sequences)
    spread(found, seen, request, sequences)
    if sequences.same:
        total, counts = band_sums(request, FAR, seen.lse, sequences)
        means = (total / counts.clamp(min=1))[0, 0].tolist()
        # An offset that only some queries have says more about their one key, such as a sink.
        common = (2 * counts >= found.rows).tolist()
        every = zip(range(-FAR, FAR + 1), means, common, strict=True)
        found.offsets = {offset: mean for offset, mean, often in every if often}
        if head.keys.kind == "tokens":
            repeats(found, head, sequences)
    found.pairs = heaviest_pairs(head, sequences, there(seen.best)[0, 0].cpu())
    return found


def shares(found: Evidence, sums: Tensor, sequences: Sequences) -> None:
    """How much weight the keys get, each from its own sequence, and what equal weights would give to the same ones."""
    keys, numbers, lengths = found.head.keys, sequences.key_numbers, sequences.lengths.float()
    special = torch.tensor(keys.special, dtype=torch.bool)[sequences.keys]
    content = content_of(keys)[sequences.keys]
    rows_of = torch.bincount(sequences.row_numbers, minlength=int(numbers.max()) + 1)
    found.received = sequences.over_keys(sums / rows_of[numbers].clamp(min=1), keys.length)
    found.longest, found.keys, found.even = int(rows_of.max()), int(lengths.max()), float((1 / lengths).mean())
    found.first = float(sums[sequences.first].sum()) / found.rows
    found.first_is_special = bool(special[sequences.first].any())
    found.special = float(sums[special].sum()) / found.rows
    found.punctuation = float(sums[~content & ~special].sum()) / found.rows
    of_key = rows_of[numbers] / torch.bincount(numbers)[numbers]
    found.even_special = float(of_key[special].sum()) / found.rows
    found.even_delimiters = float(of_key[~content].sum()) / found.rows


def spread(found: Evidence, seen: Seen, request: Request, sequences: Sequences) -> None:
    """How even the weights are, and how alike the rows of each sequence."""
    runs = request.runs()
    if runs is None:
        visible = torch.full((found.rows,), len(sequences.keys))
    else:
        visible = (runs.stop - runs.start).sum(-1).cpu()[0, 0].expand(found.rows)
    even = visible.float().clamp(min=1).log().sum()
    found.entropy = float(there(seen.entropy)[0, 0].cpu().sum() / even) if even > 0 else 0.0
    sharp = float(there(seen.concentration)[0, 0].cpu().mean())
    rows_of = torch.bincount(sequences.row_numbers, minlength=int(sequences.key_numbers.max()) + 1)
    alike = found.received[sequences.keys].square() * rows_of[sequences.key_numbers]
    found.stability = float(alike.sum()) / found.rows / sharp if sharp else 0.0


def repeats(found: Evidence, head: Head, sequences: Sequences) -> None:
    """Weights on earlier copies of the own token, and on what came after them."""
    repeated = has_copy(places(head.queries, head.keys, sequences))
    found.copies = int(repeated.sum())
    if found.copies:
        rows = sequences.rows[repeated]
        found.duplicate = float(head.duplicates().cpu()[rows].mean())
        found.induction = float(head.induction().cpu()[rows].mean())


def heaviest_pairs(head: Head, sequences: Sequences, largest: Float[Tensor, " n"]) -> list[Pair]:
    """The heaviest pairs of content that are neither neighbours nor of one word, each with its runner-up.

    Args:
        largest: of each query that counts the largest weight on a key that can make a pair with it, as a pass found it.
    """
    asking = content_of(head.queries)[sequences.rows]
    order = largest.masked_fill(~asking, 0.0).argsort(descending=True, stable=True)
    rows = order[:AGAIN].sort().values
    among, count = candidates(head.keys, sequences), len(sequences.keys)
    key, start, stop = torch.arange(count), among.start[rows, None], among.stop[rows, None]
    allowed = among.keys & asking[rows, None] & ~((key >= start) & (key < stop))
    weights = head.weights(sequences.rows[rows].tolist(), sequences.keys.tolist()).cpu().float()
    best, where = torch.zeros(len(rows), 2), torch.zeros(len(rows), 2, dtype=torch.int64)
    n = min(2, count)
    best[:, :n], where[:, :n] = weights.masked_fill(~allowed, 0.0).topk(n, dim=1)
    return as_pairs(best, where, rows, sequences)


def as_pairs(best: Tensor, where: Tensor, rows: Tensor, sequences: Sequences) -> list[Pair]:
    """The heaviest of the two heaviest keys of some queries, as pairs in falling order of weight."""
    found = []
    for place in best[:, 0].argsort(descending=True, stable=True)[:PAIRS].tolist():
        (weight, second), row = best[place].tolist(), int(rows[place])
        if weight <= 0.0:
            break
        key, next_key = sequences.keys[where[place]].tolist()
        distance = 0 if sequences.own is None else abs(int(sequences.own[row] - where[place, 0]))
        next_key = next_key if second > 0.0 else None
        found.append(Pair(int(sequences.rows[row]), key, weight, next_key, second, distance))
    return found
