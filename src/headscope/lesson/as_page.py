"""The chapters of a worked example as one HTML file: vectors as colours, weights as bars, no script and no network."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from headscope.characters import sentence
from headscope.files.replace_file import write
from headscope.lesson.cells import Cell, Share, Vector, named
from headscope.lesson.chapters import Chapter
from headscope.lesson.in_terminal import decimal
from headscope.lesson.worked_example import WorkedExample
from headscope.nn.explanation import COLUMNS, Explanation
from headscope.view.page import ICON, digest, installed

# Numbers of a vector that are drawn; of a longer one the first, and its length is in the chapter's shape.
DRAWN = 128


def page(example: WorkedExample, steps: Sequence[Chapter], table: Explanation, path: Path) -> Path:
    """Write the lesson to a file, whole or not at all.

    Raises:
        HeadscopeError: the path cannot be written.
    """
    return write("learn", path, document(example, steps, table).encode())


def document(example: WorkedExample, steps: Sequence[Chapter], table: Explanation) -> str:
    """The page as text."""
    style = (files("headscope.lesson") / "assets" / "lesson.css").read_text(encoding="utf-8")
    who = named(example.lens.queries.labels, example.query)
    title = f'What does "{who}" look at?'
    about = f"{example.model}, layer {example.layer} head {example.head}. The text: {example.text}"
    policy = f"default-src 'none'; style-src {digest(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    icon = "data:image/svg+xml;base64," + base64.b64encode(ICON.encode()).decode()
    body = "\n".join(section(number, step) for number, step in enumerate(steps, 1))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="headscope {html.escape(installed())}">
<title>{escaped(title)} · headscope</title>
<link rel="icon" href="{icon}">
<style>{style}</style>
</head>
<body>
<main>
<h1>{escaped(title)}</h1>
<p class="soft">{escaped(about)}</p>
<p class="legend">A vector is drawn as a row of cells, one for each number: <i class="p">positive</i>,
<i class="m">negative</i>, the stronger the larger; point at a cell to read it.</p>
{body}
{shapes(len(steps) + 1, table)}
</main>
<footer>Made by headscope {html.escape(installed())}; every number is the model's own.</footer>
</body>
</html>
"""


def section(number: int, step: Chapter) -> str:
    """One chapter."""
    formula = f"<p><code>{escaped(step.formula)}</code></p>\n" if step.formula else ""
    after = f"<p>{escaped(step.after)}</p>\n" if step.after else ""
    vectors = [cell.numbers for row in step.rows for cell in row if isinstance(cell, Vector)]
    largest = max((abs(x) for vector in vectors for x in vector), default=1.0)
    head = "".join(header(name, kind(cell)) for name, cell in zip(step.columns, step.rows[0], strict=True))
    rows = "\n".join(
        row_of((data(drawn(cell, largest), kind(cell)) for cell in row), marked=place in step.marked)
        for place, row in enumerate(step.rows)
    )
    return (
        f"<section><h2>{number} {escaped(step.title)}<small>{escaped(step.shape)}</small></h2>\n{formula}"
        f"<p>{escaped(step.text)}</p>\n{table_of(head, rows)}\n{after}</section>"
    )


def table_of(head: str, rows: str) -> str:
    """A table that scrolls by itself where it is too wide."""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'


def row_of(cells: Iterable[str], *, marked: bool = False) -> str:
    """A row of a table."""
    return f"<tr{classed('marked' if marked else '')}>{''.join(cells)}</tr>"


def header(text: str, name: str = "") -> str:
    """The head of a column, with its class."""
    return f'<th scope="col"{classed(name)}>{escaped(text)}</th>'


def data(content: str, name: str = "") -> str:
    """A cell with HTML in it, with its class."""
    return f"<td{classed(name)}>{content}</td>"


def classed(name: str) -> str:
    """A class as an attribute, or nothing."""
    return f' class="{name}"' if name else ""


def kind(cell: Cell) -> str:
    """The class of a cell."""
    return {Vector: "vector", Share: "bar"}.get(type(cell), "")


def drawn(cell: Cell, largest: float) -> str:
    """A cell as HTML; in a vector the largest number of the table has the full colour."""
    if isinstance(cell, Share):
        return (
            '<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="plus" width="{100 * cell.number:.2f}" height="10"/></svg>'
            f"{decimal(cell.number).strip()}"
        )
    if not isinstance(cell, Vector):
        return escaped(cell) if isinstance(cell, str) else decimal(cell).strip()
    numbers = cell.numbers[:DRAWN]
    label = ", ".join(decimal(x).strip() for x in numbers[:4]) + (", …" if len(cell.numbers) > 4 else "")
    cells = "".join(
        f'<rect class="{"plus" if x >= 0 else "minus"}" x="{place}" width="1.02" height="10" '
        f'fill-opacity="{min(1.0, abs(x) / (largest or 1.0)) ** 0.6:.2f}"><title>{decimal(x).strip()}</title></rect>'
        for place, x in enumerate(numbers)
    )
    size = f'viewBox="0 0 {len(numbers)} 10" preserveAspectRatio="none"'
    return f'<svg {size} role="img" aria-label="{label}">{cells}</svg>'


def shapes(number: int, table: Explanation) -> str:
    """The table of `hs.explain`; its first three columns are words."""
    words = len(COLUMNS) // 2
    head = "".join(header(name, "left" if place < words else "") for place, name in enumerate(COLUMNS))
    rows = "\n".join(
        row_of(data(escaped(cell), "left" if place < words else "") for place, cell in enumerate(row))
        for row in table.rows()
    )
    notes = "".join(f'<p class="soft">{escaped(note)}</p>' for note in table.notes)
    return (
        f"<section><h2>{number} The whole layer</h2>\n<p>{escaped(table.title)}</p>\n{table_of(head, rows)}\n"
        f"{notes}</section>"
    )


def escaped(text: str) -> str:
    """Text for HTML in which nothing is invisible."""
    return html.escape(sentence(text))
