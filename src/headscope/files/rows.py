"""Tables that people bring -> rows: CSV, TSV, JSON lines and Parquet, read in one way by every command."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from headscope.characters import is_text
from headscope.errors import MissingExtra
from headscope.files.encodings import Fail, lines
from headscope.files.first_bytes import kind_of_file

Row = dict[str, Any]

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
# The longest cell of a table, in characters; the csv module's own bound is shorter than a long article.
LONGEST_CELL = 2**24


def rows(path: Path, encoding: str | None, fail: Fail) -> Iterator[tuple[int, Row]]:
    """The rows of a table with their lines, or in Parquet their numbers; empty lines are none.

    Args:
        fail: makes the exception, from a text that follows the name of the file.

    Raises:
        HeadscopeError: made by `fail`: another format than the name says, another encoding, a damaged or odd row.
        MissingExtra: a .parquet file, and pyarrow is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise fail(f": {path.suffix or 'no extension'} is not read. Give {', '.join(SUFFIXES)}.")
    kind = kind_of_file(path)
    if (suffix == ".parquet") != (kind is not None and kind.what == "parquet"):
        what = "something else" if kind is None else kind.name
        raise fail(f": by its first bytes this is {what}, not what {path.suffix} says.")
    if kind is not None and suffix != ".parquet":
        raise fail(f": this is {kind.name}. Save it as {', '.join(SUFFIXES[:-1])} or .parquet first.")
    if suffix == ".parquet":
        yield from enumerate(rows_of_parquet(path, fail), 1)
    elif suffix == ".jsonl":
        yield from (
            (number, row_of(number, line, fail)) for number, line in lines(path, encoding, fail) if line.strip()
        )
    else:
        yield from rows_of_csv(path, encoding, fail, "\t" if suffix == ".tsv" else ",")


def rows_of_csv(path: Path, encoding: str | None, fail: Fail, delimiter: str) -> Iterator[tuple[int, Row]]:
    """The rows of a table with a header; one whose header has semicolons or tabs alone is cut at these."""
    number = 0

    def decoded() -> Iterator[str]:
        nonlocal number
        for number, line in lines(path, encoding, fail):  # noqa: B007
            yield line

    source = decoded()
    first = next((line for line in source if line.strip()), "")
    for other in (";", "\t"):
        if delimiter == "," and delimiter not in first and other in first:
            delimiter = other
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    read = csv.reader(chain([first], source), delimiter=delimiter, strict=True)
    try:
        header = next(read, [])
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise fail(f", line {number}: the column {twice!r} is there twice. Give each a name of its own.")
        for cells in read:
            if len(cells) > len(header):
                raise fail(
                    f", line {number}: {len(cells)} cells, and the header has {len(header)}. Put cells with "
                    f"{delimiter!r} in them in quotation marks."
                )
            if cells:
                yield number, dict(zip(header, cells, strict=False))
    except csv.Error as error:
        raise fail(f", line {number}: this cannot be read as comma-separated values: {error}.") from None


def row_of(number: int, line: str, fail: Fail) -> Row:
    """The JSON object in a line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise fail(f", line {number}: this is no JSON object. Give one in each line of a .jsonl.")
    if "\\u" in line and not is_text(json.dumps(row, ensure_ascii=False)):
        raise fail(
            f", line {number}: holds half of a surrogate pair (\\ud800 to \\udfff), which is no text. Remove it."
        )
    return row


def rows_of_parquet(path: Path, fail: Fail) -> Iterator[Row]:
    """The rows of a Parquet file, a batch at a time."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra(f"{path}: .parquet needs pyarrow. pip install pyarrow, or give a .jsonl.") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeError) as error:
        raise fail(f": this Parquet file is damaged ({(str(error).splitlines() or ['?'])[0]}).") from None
