"""A table of heads: one row each, that prints, sorts, filters and goes elsewhere."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from headscope.errors import LookError, MissingExtra
from headscope.files.replace_file import write

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

Row = dict[str, float | int]

# Columns in the order in which they are left out where a terminal is too narrow for all.
LEAST = (
    "concentration",
    "confidence",
    "induction",
    "duplicate",
    "first",
    "self",
    "next",
    "special",
    "previous",
    "entropy",
)


class Table(Sequence[Row]):
    """Rows with the same columns; `layer` and `head` are whole numbers, the others measures.

    Attributes:
        notes: lines that are printed below the table: what is not in it, and why.

    Example:
        >>> table = Table([{"layer": 0, "head": 0, "entropy": 2.5}, {"layer": 0, "head": 1, "entropy": 0.25}])
        >>> print(table.sort("entropy"))
        layer  head  entropy
            0     1    0.250
            0     0    2.500
    """

    def __init__(self, rows: Sequence[Row], by: str | None = None, notes: Sequence[str] = ()) -> None:
        self.rows = list(rows)
        self.by = by  # the column of the last sort: it is never left out
        self.notes = tuple(notes)
        self.columns = list(self.rows[0]) if self.rows else ["layer", "head"]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, which: int) -> Row: ...
    @overload
    def __getitem__(self, which: slice) -> Table: ...
    def __getitem__(self, which: int | slice) -> Row | Table:
        return Table(self.rows[which], self.by, self.notes) if isinstance(which, slice) else self.rows[which]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def sort(self, by: str, *, descending: bool = False) -> Table:
        """The rows in the order of a column; NaN comes last.

        Raises:
            LookError: there is no such column.
        """
        self._check(by)
        there = [row for row in self.rows if not math.isnan(row[by])]
        missing = [row for row in self.rows if math.isnan(row[by])]
        return Table(sorted(there, key=lambda row: row[by], reverse=descending) + missing, by, self.notes)

    def filter(self, keep: Callable[[Row], bool]) -> Table:
        """The rows for which `keep` is true, as in `table.filter(lambda row: row["previous"] > 0.4)`."""
        return Table([row for row in self.rows if keep(row)], self.by, self.notes)

    def column(self, name: str) -> list[float | int]:
        """The values of one column.

        Raises:
            LookError: there is no such column.
        """
        self._check(name)
        return [row[name] for row in self.rows]

    def _check(self, name: str) -> None:
        if name not in self.columns:
            raise LookError(f"table: there is no column {name!r}; the columns are {', '.join(self.columns)}.")

    def __str__(self) -> str:
        cells = [self.columns, *([text(row[name]) for name in self.columns] for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.columns))]
        lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
        return "\n".join((*lines, *self.notes))

    def __repr__(self) -> str:
        return f"Table({len(self)} heads: {', '.join(self.columns)})"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich import box
        from rich.table import Table as Printed
        from rich.text import Text

        cells = [self.columns, *([text(row[name]) for name in self.columns] for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) + 3 for column in range(len(self.columns))]
        empty = {name for name in self.columns if all(math.isnan(row[name]) for row in self.rows)}
        # What goes first where the room is short: what nobody has, then what says least beside the others.
        order = [name for name in LEAST if name in empty] + [name for name in LEAST if name not in empty]
        order = [name for name in order if name != self.by]
        shown = fitting(dict(zip(self.columns, widths, strict=True)), order, options.max_width - 1)
        printed = Printed(box=box.SIMPLE_HEAD)
        for name in shown:
            printed.add_column(name, justify="right", no_wrap=True)
        for row in self.rows:
            printed.add_row(*(text(row[name]) for name in shown))
        yield printed
        if missing := [name for name in self.columns if name not in shown]:
            yield Text(f"left out, for the width: {', '.join(missing)}", style="dim")
        if self.notes:
            yield Text("\n".join(self.notes), style="dim")

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`.

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MissingExtra("to_pandas: pandas is not installed; get it with: pip install pandas") from None
        return pandas.DataFrame(self.rows, columns=self.columns)

    def to_arrow(self) -> Any:
        """A `pyarrow.Table`.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        try:
            import pyarrow
        except ImportError:
            raise MissingExtra("to_arrow: pyarrow is not installed; get it with: pip install pyarrow") from None
        return pyarrow.table({name: self.column(name) for name in self.columns})

    def to_csv(self) -> str:
        """The table as comma-separated values, with all digits."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([row[name] for name in self.columns] for row in self.rows)
        return out.getvalue()

    def save(self, path: str | Path) -> Path:
        """Write the table to a `.csv` or `.parquet` file, whole or not at all.

        Raises:
            LookError: another extension.
            MissingExtra: pyarrow is needed for `.parquet` and is not installed.
            HeadscopeError: the path cannot be written.
        """
        path = Path(path)
        if path.suffix == ".csv":
            return write("table", path, self.to_csv().encode())
        if path.suffix != ".parquet":
            raise LookError(
                f"table: {path.name} ends with {path.suffix!r}; give a name that ends with .csv or .parquet."
            )
        content, out = self.to_arrow(), io.BytesIO()
        import pyarrow.parquet

        pyarrow.parquet.write_table(content, out)
        return write("table", path, out.getvalue())


def fitting(widths: dict[str, int], least: Sequence[str], room: int) -> list[str]:
    """The columns that stand in so much room: those of `least` are left out one by one until the others fit.

    Example:
        >>> fitting({"head": 6, "entropy": 9, "self": 7}, ["self", "entropy"], 16)
        ['head', 'entropy']
    """
    shown = dict(widths)
    for name in least:
        if sum(shown.values()) <= room:
            break
        shown.pop(name, None)
    return list(shown)


def text(value: float | int) -> str:
    """A number as it is printed."""
    return str(value) if isinstance(value, int) else "–" if math.isnan(value) else f"{value:.3f}"
