"""A row of a table -> a question with the places of its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from headscope.files.rows import Row
from headscope.train.tasks.cells import text_of
from headscope.train.tasks.task import Place


class Part(NamedTuple):
    """A part of a context: its text, and its first letter."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question, the context that answers it, and the answers; without any it cannot be answered."""

    line: int
    question: str
    context: str
    answers: tuple[Part, ...]

    @property
    def texts(self) -> list[str]:
        """The texts of the answers."""
        return [part.text for part in self.answers]


def question_of(row: Row, place: Place) -> Question | None:
    """A row with a question, a context and its answers; None where all three are empty.

    An answer is a text that stands in the context, with its first letter in another column where it stands there more
    than once; or a span, [first letter, letter after the last]; or a list of texts; or, as in SQuAD,
    {"text": [...], "answer_start": [...]}. An empty list says that there is none.

    Raises:
        TrainingError: an answer that is not in the context, a missing question or context; names the line.
    """
    question, name = text_of(row, "question", place), place.columns["context"]
    context = row.get(name)
    context = "" if context is None else str(context)
    given = row.get(place.columns["answer"])
    if not question and not context.strip() and given in (None, "", []):
        return None
    for what, text in (("question", question), ("context", context.strip())):
        if not text:
            raise place.error(f"the {what} is empty. Give one, or take the row out.")
    starts = row.get(place.columns["start"]) if "start" in place.columns else None
    parts = [part_of(context, text, start, place) for text, start in stated(given, starts, place)]
    return Question(place.line, question, context, tuple(parts))


def stated(given: Any, starts: Any, place: Place) -> list[tuple[Any, Any]]:
    """The answers of a cell with their first letters, as far as they are said."""
    if given is None or (isinstance(given, str) and not given.strip()):
        raise place.error(
            "there is no answer. Give one that stands in the context; a question without any has an empty list, in a "
            ".jsonl or .parquet."
        )
    if isinstance(given, Mapping):
        texts, firsts = given.get("text"), given.get("answer_start")
        if not isinstance(texts, list) or (firsts is not None and len(firsts) != len(texts)):
            raise place.error('an answer with names is {"text": [...], "answer_start": [...]}, of equal lengths.')
        return list(zip(texts, firsts if firsts is not None else [None] * len(texts), strict=True))
    if isinstance(given, list) and len(given) == 2 and all(type(x) is int for x in given):
        return [(slice(*given), given[0])]
    if isinstance(given, list):
        listed = starts if isinstance(starts, list) and len(starts) == len(given) else [None] * len(given)
        return list(zip(given, listed, strict=True))
    return [(given, starts)]


def part_of(context: str, text: Any, start: Any, place: Place) -> Part:
    """An answer where it stands in its context."""
    if isinstance(text, slice):
        first, stop = int(text.start), int(text.stop)
        if not 0 <= first < stop <= len(context):
            raise place.error(f"the span [{first}, {stop}] is not in the context, which has {len(context)} letters.")
        return Part(context[first:stop], first)
    wanted = str(text).strip()
    if start is None or start == "" or start != start:
        found = context.find(wanted)
        if found < 0 or not wanted:
            raise place.error(
                f"the answer {wanted[:60]!r} is not in the context. Give a part of it, letter by letter, or take the "
                "row out."
            )
        return Part(wanted, found)
    try:
        first = int(start)
        if isinstance(start, float) and start != first:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise place.error(f"the answer's first letter is {start!r}. Give a number, counted from 0.") from None
    # The spaces around an answer are none of it.
    first += len(str(text)) - len(str(text).lstrip())
    if first < 0 or context[first : first + len(wanted)] != wanted or not wanted:
        there = context[max(0, first) : max(0, first) + len(wanted)]
        raise place.error(
            f"the answer {wanted[:60]!r} is not at letter {first} of the context, where {there!r} stands."
        )
    return Part(wanted, first)
