"""A table of texts and labels -> examples: one label for each text, or one tag for each word."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from headscope.errors import TrainingError
from headscope.files.digests import digest_of_file
from headscope.files.rows import SUFFIXES, Row, rows

Task = Literal["classify", "tag"]

# The columns that are meant when none are named, in this order.
TEXT_COLUMNS = ("text", "sentence", "words", "tokens")
LABEL_COLUMNS = ("label", "labels", "tags", "ner_tags", "class")


@dataclass(frozen=True)
class Examples:
    """What a model is trained with.

    Attributes:
        texts: for each example its text, or its words.
        labels: for each example its label, or the tags of its words.
        skipped: how many rows had no text or no label and were left out.
        digest: the SHA-256 of the file they are from.
    """

    task: Task
    texts: list[str] | list[list[str]]
    labels: list[str] | list[list[str]]
    skipped: int = 0
    digest: str = ""

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, places: Sequence[int]) -> Examples:
        """Some of the examples, in the given order."""
        texts: Any = [self.texts[i] for i in places]
        labels: Any = [self.labels[i] for i in places]
        return replace(self, texts=texts, labels=labels)

    def classes(self) -> list[str]:
        """All labels that occur, in order: by number where all are whole numbers, else by letter."""
        flat = {label for one in self.labels for label in ([one] if isinstance(one, str) else one)}
        return sorted(flat, key=(lambda x: (int(x), x)) if all(map(is_whole, flat)) else None)


def is_whole(text: str) -> bool:
    """Whether a label is a whole number."""
    return text.lstrip("-").isdecimal()


def read(
    path: Path,
    task: Task | None = None,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
) -> Examples:
    """Read examples from a .csv, .tsv, .jsonl or .parquet file.

    Args:
        task: "classify" has one label for each text, "tag" one for each word; by the label column unless given: lists
            are tags. In a .csv words and tags stand in one cell each, with spaces between them.
        text, label: the names of the columns; the usual ones unless given.
        encoding: of the characters; UTF-8, or what a byte order mark says, unless given.

    Raises:
        TrainingError: no such file, another format or encoding, no such column, no row with both, or words and
            tags that do not match.
        MissingExtra: a .parquet file, and pyarrow is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "data.csv"
        ...     _ = path.write_text("text,label\\ngood,yes\\nbad,no\\n")
        ...     read(path).classes()
        ['no', 'yes']
    """
    if not path.is_file():
        raise TrainingError(f"--data {path}: there is no such file. Give a {', '.join(SUFFIXES)} file.")
    numbered = list(rows(path, encoding, lambda problem: TrainingError(f"--data {path}{problem}")))
    if not numbered:
        raise TrainingError(f"--data {path}: there are no rows in it. Give texts with labels.")
    names = list(dict.fromkeys(name for _, row in numbered for name in row))
    text, label = column(path, names, text, "text", TEXT_COLUMNS), column(path, names, label, "label", LABEL_COLUMNS)
    if task is None:
        task = "tag" if any(isinstance(row.get(label), list) for _, row in numbered) else "classify"
    return replace(examples(path, numbered, task, text, label), digest=digest_of_file(path))


def column(path: Path, names: list[str], given: str | None, what: str, usual: tuple[str, ...]) -> str:
    """The column that was named, or the first of the usual ones that is there."""
    found = next((name for name in ((given,) if given is not None else usual) if name in names), None)
    if found is None:
        missing = f"there is no column {given!r}" if given is not None else f"no column is called {' or '.join(usual)}"
        raise TrainingError(
            f"--data {path}: {missing}; the columns are {', '.join(names)}. Name the one to use with --{what}-column."
        )
    return found


def examples(path: Path, numbered: list[tuple[int, Row]], task: Task, text: str, label: str) -> Examples:
    """The rows that have both, as examples; the others are counted."""
    texts: list[Any] = []
    labels: list[Any] = []
    words: str | list[str]
    tags: str | list[str]
    for number, row in numbered:
        given, said = row.get(text), row.get(label)
        if task == "tag":
            words, tags = listed(given), listed(said)
            if not words or not tags:
                continue
            if len(words) != len(tags):
                raise TrainingError(
                    f"--data {path}, line {number}: {len(words)} words in {text!r} and {len(tags)} tags in {label!r}. "
                    "Give one tag for each word."
                )
        else:
            words, tags = one(path, number, text, given), one(path, number, label, said)
            if not words or not tags:
                continue
        texts.append(words)
        labels.append(tags)
    if not texts:
        raise TrainingError(
            f"--data {path}: all {len(numbered)} rows lack {text!r} or {label!r}. Give texts with labels."
        )
    return Examples(task, texts, labels, len(numbered) - len(texts))


def one(path: Path, number: int, name: str, value: object) -> str:
    """A cell as one text, empty where there is nothing in it."""
    if isinstance(value, list | dict):
        raise TrainingError(
            f"--data {path}, line {number}: {name!r} holds a list. One tag for each word is --task tag; "
            "else give one text."
        )
    if isinstance(value, float) and value == int(value if value == value and abs(value) != float("inf") else 0):
        value = int(value)  # tables with an empty cell make 1.0 of a label 1
    return "" if value is None or value != value else str(value).strip()


def listed(value: object) -> list[str]:
    """A cell as words: a list as it is, a text cut at its spaces; an empty word in a list stays, so that tags fit."""
    if isinstance(value, list):
        return [str(word) for word in value]
    return [] if value is None else str(value).split()


def split(whole: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Training and evaluation: texts drawn at random; equal texts stay together, and every label is in the training.

    Raises:
        TrainingError: the share leaves nothing on one side.
    """
    groups: dict[str, list[int]] = {}
    for place, text in enumerate(whole.texts):
        groups.setdefault(text if isinstance(text, str) else "\0".join(text), []).append(place)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    wanted = round(share * len(whole))
    train: list[int] = []
    held: list[int] = []
    for group in order:
        (held if len(held) < wanted else train).extend(group)
    known = set(whole.select(train).classes())
    for place in sorted(held):
        new = set(whole.select([place]).classes()) - known
        if new:
            known |= new
            held.remove(place)
            train.append(place)
    if not train or not held:
        raise TrainingError(
            f"--eval-share {share}: {len(whole)} examples leave {len(train)} to train with and {len(held)} to "
            "evaluate; give more examples, another share, or --eval-data FILE."
        )
    return whole.select(sorted(train)), whole.select(sorted(held))


def check(train: Examples, held: Examples) -> list[str]:
    """The labels of the training, which must be two or more and all there are.

    Raises:
        TrainingError: one label only, or a label of the evaluation that was never seen in training.
    """
    classes = train.classes()
    if len(classes) < 2:
        raise TrainingError(
            f"--data: every label is {classes[0]!r}; there is nothing to learn. Give two or more labels."
        )
    unseen = [name for name in held.classes() if name not in set(classes)]
    if unseen:
        raise TrainingError(
            f"--eval-data: the labels {', '.join(map(repr, unseen[:5]))} never occur in training, which has "
            f"{', '.join(map(repr, classes[:9]))}. Add such examples to --data, or take them out."
        )
    return classes
