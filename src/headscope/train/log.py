"""The folder of a watch: `heads.jsonl`, a line for each head and look, and `heads.parquet` at the end."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from pathlib import Path
from typing import Any

from headscope.errors import TrainingError
from headscope.files.replace_file import write
from headscope.look.table import Row
from headscope.train.head_rows import PLACE, table_of

LINES, PARQUET = "heads.jsonl", "heads.parquet"


class Log:
    """Rows on disk, appended look by look, so that what was written stays when the process is killed.

    Attributes:
        rows: all rows, those of an earlier start of the same training among them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / LINES
        self._refuse()
        self.rows, self._torn = read(self.file) if self.file.exists() else ([], False)

    def _refuse(self) -> None:
        """Raise `TrainingError` unless the folder is ours, empty, or yet to be made."""
        if self.folder.exists() and not self.folder.is_dir():
            raise TrainingError(f"Watch: {self.folder} is a file; give the folder that the rows are to be written to.")
        if self.folder.is_dir() and not self.file.exists() and any(self.folder.iterdir()):
            raise TrainingError(
                f"Watch: {self.folder} holds something else: files, but no {LINES}; give a folder of its own, such as "
                f"{self.folder / 'heads'}."
            )

    def begin(self, step: int) -> None:
        """Get ready for a training that stands at a step: rows of later steps go, since they are to come again."""
        kept = [row for row in self.rows if row["step"] <= step]
        last = kept[-1]["step"] if kept else None
        heads = [sum(row["step"] == at for row in kept) for at in (kept[0]["step"], last)] if kept else [0, 0]
        if heads[1] < heads[0]:
            kept = [row for row in kept if row["step"] != last]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.file.touch()
        except OSError as error:
            raise TrainingError(f"Watch: {self.folder} cannot be written ({error.strerror}); give another.") from error
        if len(kept) < len(self.rows) or self._torn:
            write("Watch", self.file, "".join(map(line, kept)).encode())
        self.rows = kept

    def add(self, rows: list[Row]) -> None:
        """Append the rows of a look."""
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write("".join(map(line, rows)))
        except OSError as error:
            raise TrainingError(
                f"Watch: {self.file} cannot be written ({error.strerror}); the rows up to step "
                f"{self.rows[-1]['step'] if self.rows else 0} are in it."
            ) from error
        self.rows += rows

    def close(self) -> None:
        """Write all rows once more, as Parquet, where pyarrow is installed."""
        if self.rows and importlib.util.find_spec("pyarrow") is not None:
            half = self.folder / f".{os.getpid()}.{PARQUET}"
            table_of(self.rows).save(half)
            half.replace(self.folder / PARQUET)


def line(row: Row) -> str:
    """A row as a line of JSON, which knows no NaN."""
    return json.dumps({name: None if math.isnan(value) else value for name, value in row.items()}) + "\n"


def read(file: Path) -> tuple[list[Row], bool]:
    """The rows of a file, and whether its last line was broken off by the end of its process.

    Raises:
        TrainingError: a line that is no row.
    """
    rows: list[Row] = []
    lines = file.read_bytes().split(b"\n")
    for number, text in enumerate(lines[:-1], 1):
        try:
            found: dict[str, Any] = json.loads(text)
            row: Row = {name: math.nan if value is None else value for name, value in found.items()}
            if not all(isinstance(row[name], int) for name in PLACE) or not all(
                isinstance(value, int | float) for value in row.values()
            ):
                raise TypeError("no numbers")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainingError(
                f"Watch: line {number} of {file} is no row of a head ({type(error).__name__}: {error}); the file is "
                "damaged or is something else. Remove it, or give another folder."
            ) from None
        rows.append(row)
    return rows, bool(lines[-1])
