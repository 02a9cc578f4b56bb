"""The text along an axis: labels, where its parts begin, and where a text stands in it."""

from __future__ import annotations

import bisect
import functools
import itertools
from typing import Any

from headscope.characters import shortened
from headscope.look.axis import Axis

LEVELS = ("document", "paragraph", "sentence")
ENDS = (".", "!", "?", "…", "。", "！", "？")
# Characters of text that an entry of the outline or a match shows.
SHOWN = 48


class Passage:
    """An axis as one text: the labels joined, and where each begins in it."""

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        pieces = joined(axis)
        self.starts = list(itertools.accumulate(map(len, pieces), initial=0))
        self.text = "".join(pieces)
        folded = self.text.lower()
        # A few letters change their length in lower case; then only the same letters are found.
        self.folded = folded if len(folded) == len(self.text) else self.text

    def shown(self, position: int) -> str:
        """The beginning of the text from a position on."""
        text = self.text[self.starts[position] : self.starts[position] + 2 * SHOWN]
        return shortened(" ".join(text.split()), SHOWN)

    @functools.cached_property
    def parts(self) -> dict[str, list[int]]:
        """Where documents, paragraphs and sentences begin, each position in the highest of its levels."""
        found: dict[str, list[int]] = {level: [] for level in LEVELS}
        if not self.axis.length:
            return found
        segments = set(itertools.accumulate((part.length for _, part in self.axis.parts or ()), initial=0))
        found["document"].append(0)
        before = ""
        for position in range(1, self.axis.length):
            label = self.axis.labels[position - 1]
            before = (before + label)[-8:]
            new_document = position in segments or (self.axis.special[position - 1] and not self.axis.special[position])
            if new_document:
                found["document"].append(position)
            elif self.axis.kind not in ("tokens", "segments"):
                continue
            elif before.rstrip(" ").endswith(("\n\n", "ĊĊ")):
                found["paragraph"].append(position)
            elif before.rstrip().endswith(ENDS) and not self.axis.labels[position].strip("Ġ▁ \n").startswith(ENDS):
                found["sentence"].append(position)
            else:
                continue
            before = ""
        return found

    def outline(self, start: int, stop: int, limit: int) -> dict[str, Any]:
        """The parts that begin in a stretch: the higher levels first, the last one that fits thinned evenly."""
        chosen: list[tuple[int, str]] = []
        more = False
        for level in LEVELS:
            places = self.parts[level]
            places = places[bisect.bisect_left(places, start) : bisect.bisect_left(places, stop)]
            room = limit - len(chosen)
            if len(places) > room:
                places, more = [places[i * len(places) // room] for i in range(room)] if room else [], True
            chosen += [(place, level) for place in places]
        entries = [{"position": at, "level": level, "text": self.shown(at)} for at, level in sorted(chosen)]
        return {"start": start, "stop": stop, "entries": entries, "more": more}

    def search(self, wanted: str, start: int, limit: int) -> dict[str, Any]:
        """The matches of a text from a position on."""
        needle = wanted.lower() if self.folded is not self.text else wanted
        matches: list[dict[str, Any]] = []
        at = self.folded.find(needle, self.starts[start])
        while at >= 0 and len(matches) < limit:
            first = bisect.bisect_right(self.starts, at) - 1
            last = bisect.bisect_left(self.starts, at + len(needle))
            matches.append({"start": first, "stop": max(last, first + 1), "text": self.shown(max(first - 2, 0))})
            at = self.folded.find(needle, max(self.starts[first + 1], at + 1))
        return {"q": wanted, "matches": matches, "more": at >= 0}


@functools.lru_cache(8)
def passage(axis: Axis) -> Passage:
    """The text of an axis, kept for the axes that were asked for last."""
    return Passage(axis)


def joined(axis: Axis) -> list[str]:
    """The labels as they stand in a text: with the spaces that marks of tokenizers, or the characters' places, say."""
    labels = axis.labels
    if axis.kind != "tokens":
        return [f"{label} " for label in labels]
    sample = labels[:4096]
    if any("Ġ" in label or "Ċ" in label or label.startswith("▁") for label in sample):
        return [label.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n") for label in labels]
    if any(label[:1] == " " for label in sample):
        return list(labels)
    if axis.spans is not None and any(axis.spans):
        ends = itertools.chain([None], (span[1] if span else None for span in axis.spans))
        gaps = (" " if span and end is not None and span[0] > end else "" for span, end in zip(axis.spans, ends))  # noqa: B905
        return [gap + label.removeprefix("##") for gap, label in zip(gaps, labels, strict=True)]
    return [label[2:] if label.startswith("##") else f" {label}" for label in labels]
