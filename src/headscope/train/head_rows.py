"""What is written of a look: one row for each head. Rows come from a recording here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Iterable

from headscope.look.table import Row, Table
from headscope.recording.recording import Recording

# What a row says besides the measures of its head.
PLACE = ("step", "layer", "head")
LOSS = "loss"


def rows_of(step: int, recording: Recording, loss: float | None = None) -> list[Row]:
    """One row for each recorded head: step, layer, head, every measure, and the loss where it is known."""
    rest: Row = {} if loss is None else {LOSS: loss}
    return [{"step": step} | row | rest for row in recording.heads()]


def table_of(rows: Iterable[Row]) -> Table:
    """A table of rows that need not all have the same columns: what a row lacks is NaN, and the loss comes last."""
    rows = list(rows)
    columns = list(dict.fromkeys([*PLACE, *(name for row in rows for name in row if name != LOSS)]))
    columns += [LOSS] if any(LOSS in row for row in rows) else []
    return Table([{name: row.get(name, math.nan) for name in columns} for row in rows])
