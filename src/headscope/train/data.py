"""A table of examples -> the examples of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headscope.errors import TrainingError
from headscope.files.digests import digest_of_file
from headscope.files.rows import SUFFIXES, Row, rows
from headscope.train.tasks.listing import TASKS, task_named
from headscope.train.tasks.task import Column, Place, Task


@dataclass(frozen=True)
class Examples:
    """What a model is trained or evaluated with.

    Attributes:
        rows: the examples, each of the kind of its task.
        skipped: the lines of rows that had nothing in them and were left out.
        digest: the SHA-256 of the file they are from.
    """

    task: Task
    rows: list[Any]
    skipped: tuple[int, ...] = ()
    digest: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, places: Sequence[int]) -> Examples:
        """Some of the examples, in this order."""
        return replace(self, rows=[self.rows[i] for i in places])

    def prefixed(self, prefix: str) -> Examples:
        """The examples with a text before their sources."""
        return replace(self, rows=[self.task.prefixed(row, prefix) for row in self.rows]) if prefix else self


def read(
    path: Path,
    task: Task | None = None,
    columns: Mapping[str, str | None] | None = None,
    encoding: str | None = None,
    option: str = "--data",
) -> Examples:
    """Read examples from a .csv, .tsv, .jsonl or .parquet file.

    Args:
        task: what to train for; by the columns unless given.
        columns: the names of columns by their role, as in {"label": "mood"}; the usual ones unless given.
        encoding: of the characters; UTF-8, or what a byte order mark says, unless given.
        option: what named the file, for messages.

    Raises:
        TrainingError: no such file, another format or encoding, no such column, no row with an example, a row that
            contradicts itself.
        MissingExtra: a .parquet file, and pyarrow is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "data.csv"
        ...     _ = path.write_text("text,label\\ngood,yes\\nbad,no\\n")
        ...     read(path).rows[1]
        Labelled(line=3, text='bad', label='no')
    """
    where = f"{option} {path}"
    if not path.is_file():
        raise TrainingError(f"{where}: there is no such file. Give a {', '.join(SUFFIXES)} file.")
    numbered = list(rows(path, encoding, lambda problem: TrainingError(f"{where}{problem}")))
    if not numbered:
        raise TrainingError(f"{where}: there are no rows in it. Give one example in each row.")
    names = list(dict.fromkeys(name for _, row in numbered for name in row))
    chosen = {role: name for role, name in (columns or {}).items() if name is not None}
    task = task_of(where, names, numbered, chosen) if task is None else task
    known = named_columns(where, task, names, chosen)
    return replace(examples(where, task, numbered, known), digest=digest_of_file(path))


def task_of(where: str, names: Sequence[str], numbered: Sequence[tuple[int, Row]], chosen: Mapping[str, str]) -> Task:
    """The task that the columns speak for: labels classify or tag; a question with a context is answered.

    Raises:
        TrainingError: they may mean several.
    """
    roles = {role for task in TASKS for role in found_columns(task, names, chosen)}
    if "label" in roles or "label" in chosen:
        (label,) = (column for column in task_named("classify").columns if column.role == "label")
        name = chosen.get("label") or next(x for x in label.usual if x in names)
        return task_named("tag" if any(isinstance(row.get(name), list) for _, row in numbered) else "classify")
    for task in TASKS:
        if task.name == "answer" and {"question", "context"} <= roles:
            return task
    raise TrainingError(
        f"{where}: the columns {', '.join(names)} do not say what to train for. Name it with --task "
        f"{'|'.join(task.name for task in TASKS)}, or the column of the labels with --label-column."
    )


def found_columns(task: Task, names: Sequence[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """For the roles of a task the columns that are there: those that were named, else the first of the usual ones."""
    found = {}
    for column in task.columns:
        wanted = (chosen[column.role],) if column.role in chosen else column.usual
        name = next((name for name in wanted if name in names), None)
        if name is not None:
            found[column.role] = name
    return found


def named_columns(where: str, task: Task, names: Sequence[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """The column of every role of a task.

    Raises:
        TrainingError: one is missing, or a column was named that the task does not read.
    """
    roles = [column.role for column in task.columns]
    for role in chosen:
        if role not in roles:
            raise TrainingError(
                f"--{role}-column: --task {task.name} reads {' and '.join(f'--{x}-column' for x in roles)}. Leave it "
                "out, or give another --task."
            )
    found = found_columns(task, names, chosen)
    for column in task.columns:
        if column.role not in found and (column.role in chosen or not column.optional):
            raise missing(where, column, names, chosen)
    return found


def missing(where: str, column: Column, names: Sequence[str], chosen: Mapping[str, str]) -> TrainingError:
    """The error of a column that is not there."""
    name = chosen.get(column.role)
    problem = f"there is no column {name!r}" if name else f"no column is called {' or '.join(column.usual)}"
    return TrainingError(
        f"{where}: {problem}; the columns are {', '.join(names)}. Name the one to use with --{column.role}-column."
    )


def examples(where: str, task: Task, numbered: Sequence[tuple[int, Row]], columns: Mapping[str, str]) -> Examples:
    """The rows as examples; those that have nothing in them are counted."""
    found: list[Any] = []
    skipped: list[int] = []
    for line, row in numbered:
        example = task.example(row, Place(where, line, columns))
        if example is None:
            skipped.append(line)
        else:
            found.append(example)
    if not found:
        lacking = " or ".join(repr(name) for name in columns.values())
        raise TrainingError(f"{where}: all {len(numbered)} rows lack {lacking}. Give {task.holds} in each row.")
    return Examples(task, found, tuple(skipped))
