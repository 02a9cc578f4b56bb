"""The folder of a watch: `heads.jsonl`, a line for each head and look, and `heads.parquet` at the end.

`watch.json` says what the rows belong to, so that those of another training are not continued.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headscope.errors import HeadscopeError, TrainingError
from headscope.files import system
from headscope.files.bounded import read_bounded
from headscope.files.digests import differences
from headscope.files.replace_file import append, reason, write
from headscope.look.table import Row
from headscope.train.head_rows import PLACE, table_of

LINES, PARQUET, ABOUT = "heads.jsonl", "heads.parquet", "watch.json"
LARGEST_ABOUT = 2**20


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

    def begin(self, step: int, about: Mapping[str, Any]) -> None:
        """Get ready for a training that stands at a step: rows of later steps go, since they are to come again.

        Args:
            about: what the rows belong to.

        Raises:
            TrainingError: the rows are of something else, or the folder cannot be written.
        """
        kept = [row for row in self.rows if row["step"] <= step]
        last = kept[-1]["step"] if kept else None
        heads = [sum(row["step"] == at for row in kept) for at in (kept[0]["step"], last)] if kept else [0, 0]
        if heads[1] < heads[0]:
            kept = [row for row in kept if row["step"] != last]
        if kept:
            self._compare(about)
        try:
            system.make_folders(self.folder)
            append("Watch", self.file, b"")
        except OSError as error:
            raise TrainingError(f"Watch: {self.folder} cannot be written ({error.strerror}); give another.") from error
        write("Watch", self.folder / ABOUT, json.dumps(about, indent=1).encode())
        if len(kept) < len(self.rows) or self._torn:
            write("Watch", self.file, "".join(map(line, kept)).encode())
        self.rows = kept

    def _compare(self, about: Mapping[str, Any]) -> None:
        """Raise `TrainingError` unless the rows in the folder are of the same model, probe and selection."""
        file = self.folder / ABOUT
        if not file.exists():
            return
        try:
            was = json.loads(read_bounded(file, LARGEST_ABOUT, TrainingError))
            other = differences(was, about)
        except (ValueError, AttributeError):
            raise TrainingError(f"Watch: {file} is damaged; remove it, or give another folder.") from None
        if other:
            raise TrainingError(
                f"Watch: the rows in {self.folder} are of another {' and '.join(other)}; give the same as then, "
                "start=0 to begin again and replace them, or another folder."
            )

    def add(self, rows: list[Row]) -> None:
        """Append the rows of a look."""
        try:
            # The first look is there whole or not at all: how many rows it has says whether a later one is complete.
            (append if self.rows else write)("Watch", self.file, "".join(map(line, rows)).encode())
        except (OSError, HeadscopeError) as error:
            raise TrainingError(
                f"Watch: {self.file} cannot be written ({reason(error)}); the rows up to step "
                f"{self.rows[-1]['step'] if self.rows else 0} are in it."
            ) from error
        self.rows += rows

    def close(self) -> None:
        """Write all rows once more, as Parquet, where pyarrow is installed."""
        if self.rows and importlib.util.find_spec("pyarrow") is not None:
            table_of(self.rows).save(self.folder / PARQUET)


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
