"""One sentence for every head: its leading finding, or how its weight is spread where there is no finding."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from headscope.look.axis import Axis
from headscope.look.findings import NOUNS, Finding, quoted
from headscope.look.table import Row
from headscope.view.labels import sentence
from headscope.view.subject import Subject

# Mean weight from which special tokens, or one offset, are worth a sentence though they are below a finding's limit.
LEANS, OFTEN = 0.5, 0.25
# Share of all keys from which a head that spreads its weight is said to do so evenly.
EVENLY = 0.5
# How many times the weight of its runner-up a pair must have before the ratio is said.
TIMES = 1.5
OFFSETS = {"previous": "the previous", "self": "its own", "next": "the next"}


@dataclass(frozen=True)
class Headline:
    """What is said first of a head.

    Attributes:
        text: the sentence, without the name of the head.
        kind: the kind of the finding, or "spread" where there is none.
        query, key: the positions that it names, if it names any.
    """

    text: str
    kind: str
    query: int | None = None
    key: int | None = None


def headlines(subject: Subject) -> dict[tuple[int, int], Headline]:
    """The headline of every head, by the model's numbers of its layer and itself.

    Example:
        >>> import torch, headscope as hs
        >>> axis = hs.Axis.tokens(["the", "cat", "sat"])
        >>> subject = Subject("page", hs.Head(torch.zeros(3, 2), torch.zeros(3, 2), queries=axis))
        >>> headlines(subject)[0, 0].text
        'looks everywhere: 1.00 of the entropy of equal weights'
    """
    said: dict[tuple[int, int], Headline] = {}
    axes = dict(zip(subject.recording.numbers, subject.recording.axes, strict=True))
    for finding in subject.findings:
        if (finding.layer, finding.head) not in said:
            said[finding.layer, finding.head] = of_finding(finding, *axes[finding.layer])
    if len(said) < sum(layer.heads for layer in subject.layers):
        for row in subject.measures:
            keys = axes[int(row["layer"])][1]
            found = of_measures(row, NOUNS[keys.kind], keys.length)
            said.setdefault((int(row["layer"]), int(row["head"])), replace(found, text=named(found.text, keys)))
    return said


def of_finding(finding: Finding, queries: Axis, keys: Axis) -> Headline:
    """A finding as a sentence whose subject is the head, or the token that the finding names."""
    numbers = finding.evidence
    query, key = (int(numbers[name]) if name in numbers else None for name in ("query", "key"))
    if finding.kind != "pair" or query is None or key is None:
        return Headline(named(sentence(bare(finding)), keys), finding.kind, query, key)
    weight, second = float(numbers["weight"]), float(numbers.get("next weight", 0.0))
    text = f"{quoted(queries, query)} looks at {quoted(keys, key)}: {weight:.2f}"
    if second > 0.0 and weight >= TIMES * second:
        text += f", {times(weight / second)} the runner-up"
    elif second > 0.0:
        text += f", then {quoted(keys, int(numbers['next key']))} {second:.2f}"
    return Headline(sentence(text), "pair", query, key)


def times(ratio: float) -> str:
    """A ratio in words: "13 times", "1.7 times"."""
    return f"{ratio:.1f} times" if ratio < 3 else f"{ratio:.0f} times" if ratio < 1000 else "over 1000 times"


def bare(finding: Finding) -> str:
    """The text of a finding without the head's name."""
    return finding.text.removeprefix(f"layer {finding.layer} head {finding.head}").lstrip(": ")


def of_measures(row: Row, noun: str, keys: int) -> Headline:
    """What is said of a head without a finding: where most of its weight is, or how widely that is spread."""
    special = float(row.get("special", math.nan))
    if special >= LEANS:
        return Headline(f"leans on the special {plural(noun)}: {special:.2f} of all weight", "special")
    near = {name: float(row.get(name, math.nan)) for name in OFFSETS}
    often = max(near, key=lambda name: near[name] if near[name] == near[name] else -1.0)
    if near[often] >= OFTEN:
        return Headline(f"often looks at {OFFSETS[often]} {noun}: mean weight {near[often]:.2f}", often)
    entropy = float(row.get("entropy", math.nan))
    if math.isnan(entropy):
        return Headline("sees nothing: no query may look at any key", "spread")
    count = round(math.exp(entropy))
    how = "spread evenly over" if count >= EVENLY * keys else "spread over about"
    return Headline(f"{how} {count} of {keys} {noun if keys == 1 else plural(noun)}", "spread")


def named(text: str, keys: Axis) -> str:
    """A sentence in the words of its keys: what is special of a sound is the silence that fills it up."""
    return text.replace("the special frames", "the silence at the end") if keys.kind == "frames" else text


def plural(noun: str) -> str:
    """The plural of one of `NOUNS`."""
    return "patches" if noun == "patch" else f"{noun}s"
