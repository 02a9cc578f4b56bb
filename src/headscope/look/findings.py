"""What heads do, in plain words, each with the evidence it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch

from headscope.look.axis import Axis
from headscope.look.evidence import Evidence, Pair, measure
from headscope.look.head import Head
from headscope.look.words import content_of

# Mean weight from which a head is said to look at one offset.
OFFSET = 0.4
# Mean weight on the keys at most NEAR places away from which a head is local; only where there are SEVERAL times more.
LOCAL, NEAR, SEVERAL = 0.8, 8, 4
# Mean weight from which a head is said to rest on the first token, on the special tokens, or on these and punctuation.
REST = 0.7
# Mean weight on earlier copies, or on what came after them, where at least COPIES queries have one.
COPY, COPIES = 0.3, 3
# Share of the entropy of equal weights from which a head is broad.
BROAD = 0.95
# Stability of the rows from which their columns are named, and the mean weight that the heaviest column must have.
STABLE, COLUMN = 0.8, 0.3
# Weight from which a single pair of tokens is named.
PAIR = 0.3
# Queries up to which a pair counts in full; in longer texts it speaks of a smaller and smaller part.
SHORT = 40

Numbers = Mapping[str, float | int | str]

NAMED_OFFSETS = {-1: ("previous", "the previous"), 0: ("self", "its own"), 1: ("next", "the next")}
NOUNS = {"tokens": "token", "patches": "patch", "frames": "frame", "positions": "position", "segments": "position"}


@dataclass(frozen=True)
class Finding:
    """One thing that a head does.

    Attributes:
        text: the finding in plain words.
        kind: the word in the table of `patterns`: "previous", "special", "pair", ...
        score: how informative it is: how far the evidence stands above the mean of the other heads.
        evidence: the numbers and positions it rests on.
    """

    text: str
    layer: int
    head: int
    kind: str
    score: float
    evidence: Numbers = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text


class Patterns(tuple[Finding, ...]):
    """Findings, the most informative first; prints one line for each."""

    __slots__ = ()

    def of(self, *kinds: str) -> Patterns:
        """The findings of these kinds."""
        return Patterns(finding for finding in self if finding.kind in kinds)

    def at(self, layer: int, head: int | None = None) -> Patterns:
        """The findings about one head, or about all heads of a layer."""
        return Patterns(finding for finding in self if finding.layer == layer and head in (None, finding.head))

    def __str__(self) -> str:
        return "\n".join(finding.text for finding in self) or "no findings"

    def __repr__(self) -> str:
        return f"Patterns({len(self)} findings)\n{self}"


def patterns(heads: Iterable[tuple[int, int, Head]]) -> Patterns:
    """What each head does, in plain words, with evidence; the most informative first.

    | kind                 | said when                                                              | threshold |
    |----------------------|------------------------------------------------------------------------|-----------|
    | previous, self, next | mean weight on the key one before, at, one after the own position      | 0.4       |
    | offset               | the same 2 to 16 places away, where half of the queries have a key     | 0.4       |
    | local                | mean weight at most 8 places away, no single offset, 68 keys or more   | 0.8       |
    | first                | mean weight on the first key, where that is no special token           | 0.7       |
    | special              | mean weight on all special keys together ([CLS], [SEP], ...)           | 0.7       |
    | delimiter            | the same of special keys and punctuation, where special ones are less  | 0.7       |
    | duplicate            | mean weight on earlier copies of the own token; 3 or more have one     | 0.3       |
    | induction            | mean weight on what came after an earlier copy; 3 or more have one     | 0.3       |
    | broad                | mean entropy as a share of that of equal weights                       | 0.95      |
    | columns              | all rows alike (stability) on a key of content, mean weight 0.3 there  | 0.8       |
    | pair                 | weight of one query of content on one key of content; two for a head   | 0.3       |

    Content is what is neither special nor punctuation. A pair is named when they are neither neighbours nor pieces of
    one word; its runner-up is the next key that could have been named in its place.

    A finding's score is its evidence minus the mean of the same measure over the other heads, so what only one head
    does comes before what they all do. For a single head it is the evidence minus what equal weights would give. That
    of a pair within one text counts `1 - 1/distance`: most of what heads and grammar link is near, so a far link says
    more. In a text of more than `SHORT` queries it counts `SHORT / queries` of that: the heaviest of hundreds of rows
    is an extreme that nearly every head has, and it speaks of one row, where a mean speaks of all of them.
    Padding is left out, and packed texts count one by one: means are over the queries of all of them.

    Args:
        heads: layer, head number and head, as a `Recording` yields them.

    Shapes:
        any number of heads, of any sizes.

    Source: the kinds of Clark et al. 2019, Voita et al. 2019, Olsson et al. 2022 and Wang et al. 2022.

    Example:
        >>> import torch
        >>> from headscope import Head, causal
        >>> eye = 20 * torch.eye(4)
        >>> head = Head(eye, eye.roll(-1, 0), mask=causal())
        >>> print(patterns([(0, 2, head)]))
        layer 0 head 2 looks at the previous position: mean weight 1.00
    """
    measured = [measure(layer, number, head) for layer, number, head in heads]
    found: list[Finding] = []
    for evidence in measured:
        others = [other for other in measured if other is not evidence]
        for say in (offsets, local, resting, copying, evenness, columns):
            found.extend(say(evidence, others))
    for group in comparable(measured):
        found.extend(pairs(group))
    return Patterns(sorted(found, key=lambda finding: -finding.score))


def offsets(evidence: Evidence, others: list[Evidence]) -> Iterator[Finding]:
    """Heads that look at one place relative to their own."""
    noun = NOUNS[evidence.head.keys.kind]
    for offset, weight in evidence.offsets.items():
        if weight >= OFFSET:
            score = weight - usual([other.offsets.get(offset, 0.0) for other in others], evidence.even)
            kind, place = NAMED_OFFSETS.get(offset, ("offset", ""))
            text = f"looks at {place} {noun}: mean weight {weight:.2f}"
            if kind == "offset":
                text = f"looks {abs(offset)} {noun}s {'back' if offset < 0 else 'ahead'}: mean weight {weight:.2f}"
            yield finding(evidence, kind, text, score, {"mean weight": weight, "offset": offset})


def local(evidence: Evidence, others: list[Evidence]) -> Iterator[Finding]:
    """Heads that stay in a window around their own position."""
    near = near_weight(evidence)
    if (
        near < LOCAL
        or evidence.keys < SEVERAL * (2 * NEAR + 1)
        or max(evidence.offsets.values(), default=0.0) >= OFFSET
    ):
        return
    score = near - usual([near_weight(other) for other in others], (2 * NEAR + 1) * evidence.even)
    text = f"stays near: {near:.2f} of all weight is at most {NEAR} {NOUNS[evidence.head.keys.kind]}s away"
    yield finding(evidence, "local", text, score, {"mean weight": near, "distance": NEAR})


def near_weight(evidence: Evidence) -> float:
    """The mean weight at most `NEAR` places away."""
    return sum((weight for offset, weight in evidence.offsets.items() if abs(offset) <= NEAR), 0.0)


def resting(evidence: Evidence, others: list[Evidence]) -> Iterator[Finding]:
    """Heads that leave most of their weight on special tokens, on these and punctuation, or on the first token."""
    keys, first, special = evidence.head.keys, evidence.first, evidence.special
    noun, both = NOUNS[keys.kind], special + evidence.punctuation
    if special >= REST:
        key, weight = evidence.heaviest(torch.tensor(keys.special))
        text = f"rests on the special {noun}s: {special:.2f} of all weight, {quoted(keys, key)} alone {weight:.2f}"
        score = special - usual([other.special for other in others], evidence.even_special)
        numbers = {"mean weight": special, "key": key, "key weight": weight, "first weight": first}
        yield finding(evidence, "special", text, score, numbers)
    elif evidence.punctuation and both >= REST:
        key, weight = evidence.heaviest(~content_of(keys))
        text = f"rests on the delimiters: {both:.2f} of all weight, {quoted(keys, key)} alone {weight:.2f}"
        usually = usual([other.special + other.punctuation for other in others], evidence.even_delimiters)
        numbers = {"mean weight": both, "key": key, "key weight": weight, "special weight": special}
        yield finding(evidence, "delimiter", text, both - usually, numbers)
    if first >= REST and not evidence.first_is_special:
        score = first - usual([other.first for other in others], evidence.even)
        text = f"rests on the first {noun}: mean weight {first:.2f}"
        yield finding(evidence, "first", text, score, {"mean weight": first})


def copying(evidence: Evidence, others: list[Evidence]) -> Iterator[Finding]:
    """Heads that look at earlier copies of a token, or at what came after them."""
    if evidence.copies < COPIES:
        return
    for kind, place, weight in (
        ("duplicate", "earlier copies of the same token", evidence.duplicate),
        ("induction", "what came after earlier copies of the same token", evidence.induction),
    ):
        if weight >= COPY:
            score = weight - usual([getattr(other, kind) for other in others if other.copies], evidence.even)
            text = f"looks at {place}: mean weight {weight:.2f}"
            yield finding(evidence, kind, text, score, {"mean weight": weight, "queries": evidence.copies})


def evenness(evidence: Evidence, others: list[Evidence]) -> Iterator[Finding]:
    """Heads that look everywhere."""
    if evidence.entropy >= BROAD:
        score = evidence.entropy - (sum(other.entropy for other in others) / len(others) if others else 0.5)
        text = f"looks everywhere: {evidence.entropy:.2f} of the entropy of equal weights"
        yield finding(evidence, "broad", text, score, {"entropy": evidence.entropy})


def columns(evidence: Evidence, others: list[Evidence]) -> Iterator[Finding]:
    """Heads whose rows all look at the same keys of content."""
    keys = evidence.head.keys
    found = evidence.head.sequences
    later = found.over_keys(~found.first, keys.length)
    content = content_of(keys) & later
    if evidence.stability < STABLE or not content.any():
        return
    key, weight = evidence.heaviest(content)
    if weight >= COLUMN:
        noun = NOUNS[evidence.head.queries.kind]
        text = f"looks at the same place from every {noun}: {quoted(keys, key)} has mean weight {weight:.2f}"
        rivals = [float(other.received[key]) for other in others if other.head.keys.labels == keys.labels]
        numbers = {"key": key, "mean weight": weight, "stability": evidence.stability}
        yield finding(evidence, "columns", text, weight - usual(rivals, evidence.even), numbers)


def pairs(group: list[Evidence]) -> Iterator[Finding]:
    """The heaviest pairs of content of heads that can be compared."""
    named = [(evidence, pair) for evidence in group for pair in evidence.pairs if pair.weight >= PAIR]
    if not named:
        return
    # Each head is asked once for all the pairs, or a model of many heads would be asked heads x heads times.
    queries, keys = (sorted(set(places)) for places in zip(*((pair.query, pair.key) for _, pair in named), strict=True))
    total = torch.zeros(len(queries), len(keys), dtype=torch.float64)
    for evidence in group:
        total += evidence.head.weights(queries, keys).cpu()
    for evidence, pair in named:
        head = evidence.head
        everyone = float(total[queries.index(pair.query), keys.index(pair.key)])
        rivals = [(everyone - pair.weight) / (len(group) - 1)] if len(group) > 1 else []
        text = f"{quoted(head.queries, pair.query)} → {quoted(head.keys, pair.key)} {pair.weight:.2f}"
        if pair.next_key is not None:
            text += f" (next: {quoted(head.keys, pair.next_key)} {pair.next_weight:.2f})"
        score = (pair.weight - usual(rivals, evidence.even)) * farness(pair) * min(1.0, SHORT / evidence.longest)
        yield finding(evidence, "pair", text, score, numbers_of(head, pair))


def farness(pair: Pair) -> float:
    """`1 - 1/distance` within one text: how far a link stands above the neighbours; 1 between two texts."""
    return 1 - 1 / pair.distance if pair.distance else 1.0


def numbers_of(head: Head, pair: Pair) -> Numbers:
    """The evidence of a pair."""
    found: dict[str, float | int | str] = {"query": pair.query, "key": pair.key, "weight": pair.weight}
    found |= {"query label": head.queries.label(pair.query), "key label": head.keys.label(pair.key)}
    if pair.next_key is not None:
        found |= {"next key": pair.next_key, "next weight": pair.next_weight}
        found["next label"] = head.keys.label(pair.next_key)
    return found


def finding(evidence: Evidence, kind: str, text: str, score: float, numbers: Numbers) -> Finding:
    """A finding about the head that the evidence is of."""
    layer, head = evidence.layer, evidence.number
    colon = ":" if kind == "pair" else ""
    return Finding(f"layer {layer} head {head}{colon} {text}", layer, head, kind, score, numbers)


def comparable(measured: list[Evidence]) -> list[list[Evidence]]:
    """Heads whose positions are the same, so that their pairs can be compared."""
    groups: dict[tuple[object, ...], list[Evidence]] = {}
    for evidence in measured:
        name = (evidence.same, evidence.head.queries.labels, evidence.head.keys.labels)
        groups.setdefault(name, []).append(evidence)
    return list(groups.values())


def usual(others: list[float], even: float) -> float:
    """What a measure usually is: its mean over the other heads, or with equal weights when there are none."""
    return sum(others) / len(others) if others else even


def quoted(axis: Axis, position: int) -> str:
    """The label of a position in quotes; with its number where another position has the same label."""
    if axis.kind == "positions":
        return f"position {axis.labels[position]}"
    label = axis.labels[position].strip().lstrip("Ġ▁")
    return f'"{label}"' if axis.labels.count(axis.labels[position]) == 1 else f'"{label}" ({position})'
