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
    from rich.table import Table as Printed

Row = dict[str, float | int]


class Table(Sequence[Row]):
    """Rows with the same columns; `layer` and `head` are whole numbers, the others measures.

    Example:
        >>> table = Table([{"layer": 0, "head": 0, "entropy": 2.5}, {"layer": 0, "head": 1, "entropy": 0.25}])
        >>> print(table.sort("entropy"))
        layer  head  entropy
            0     1    0.250
            0     0    2.500
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self.columns = list(self.rows[0]) if self.rows else ["layer", "head"]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, which: int) -> Row: ...
    @overload
    def __getitem__(self, which: slice) -> Table: ...
    def __getitem__(self, which: int | slice) -> Row | Table:
        return Table(self.rows[which]) if isinstance(which, slice) else self.rows[which]

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
        return Table(sorted(there, key=lambda row: row[by], reverse=descending) + missing)

    def filter(self, keep: Callable[[Row], bool]) -> Table:
        """The rows for which `keep` is true, as in `table.filter(lambda row: row["previous"] > 0.4)`."""
        return Table([row for row in self.rows if keep(row)])

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
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Table({len(self)} heads: {', '.join(self.columns)})"

    def __rich__(self) -> Printed:
        from rich import box
        from rich.table import Table as Printed

        printed = Printed(box=box.SIMPLE_HEAD)
        for name in self.columns:
            printed.add_column(name, justify="right")
        for row in self.rows:
            printed.add_row(*(text(row[name]) for name in self.columns))
        return printed

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


def text(value: float | int) -> str:
    """A number as it is printed."""
    return str(value) if isinstance(value, int) else "–" if math.isnan(value) else f"{value:.3f}"
