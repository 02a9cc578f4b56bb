"""The chapters of a worked example at the width of a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from headscope.characters import sentence
from headscope.lesson.cells import Cell, Share, Vector
from headscope.lesson.chapters import Chapter

STRONG, FAINT = Style(bold=True), Style(dim=True)
NUMBER, BAR = 9, 20  # characters of a number with its gap, and of the longest bar
LABEL = 24
FULL, PARTS = "█", " ▏▎▍▌▋▊▉"


class Printed:
    """One chapter, ready for a console."""

    def __init__(self, number: int, chapter: Chapter) -> None:
        self.number, self.chapter = number, chapter

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text | Segment]:
        chapter = self.chapter
        yield Text.assemble((f"{self.number} {chapter.title}", STRONG), ("  " + chapter.shape, FAINT))
        if chapter.formula:
            yield Text(sentence(chapter.formula), style=FAINT)
        yield Text(sentence(chapter.text))
        yield from table(chapter, options.max_width, ascii_only=options.encoding.lower() == "ascii")
        if chapter.after:
            yield Text(sentence(chapter.after))
        yield Segment.line()


def table(chapter: Chapter, width: int, *, ascii_only: bool = False) -> Iterator[Text]:
    """The numbers: each vector as many as fit, each share with a bar where there is room."""
    label = min(max(cell_len(str(row[0])) for row in chapter.rows), LABEL, max(8, width // 3))
    room = width - 1 - label
    vectors = sum(isinstance(cell, Vector) for cell in chapter.rows[0])
    plain = sum(NUMBER for cell in chapter.rows[0][1:] if not isinstance(cell, Vector))
    numbers = max(1, (room - plain - 2) // NUMBER) if vectors else 0
    bar = 0 if vectors else max(0, min(BAR, room - plain - 1))
    head = Text(set_cell_size(chapter.columns[0], label), style=FAINT)
    for name, cell in zip(chapter.columns[1:], chapter.rows[0][1:], strict=True):
        head.append(f" {name}" if isinstance(cell, Vector) else name.rjust(NUMBER))
    yield head
    for place, row in enumerate(chapter.rows):
        line = Text(fitted(str(row[0]), label), no_wrap=True, style=STRONG if place in chapter.marked else "")
        for cell in row[1:]:
            line.append(printed(cell, numbers, bar, ascii_only=ascii_only))
        line.rstrip()
        yield line


def printed(cell: Cell, numbers: int, bar: int, *, ascii_only: bool = False) -> str:
    """A cell as characters."""
    if isinstance(cell, Vector):
        shown = "".join(decimal(x) for x in cell.numbers[:numbers])
        return shown + (" …" if len(cell.numbers) > numbers else "")
    if isinstance(cell, Share):
        return decimal(cell.number) + (" " + bar_of(cell.number, bar, ascii_only=ascii_only) if bar else "")
    return decimal(cell) if isinstance(cell, float) else cell.rjust(NUMBER)


def decimal(x: float) -> str:
    """A number with three decimals, at the right end of its column."""
    if math.isinf(x):
        return ("−∞" if x < 0 else "∞").rjust(NUMBER)
    text = f"{x:.3f}" if abs(x) < 10**4 else f"{x:.2g}"
    return (text.replace("-0.000", "0.000") if text == "-0.000" else text).rjust(NUMBER)


def bar_of(share: float, width: int, *, ascii_only: bool = False) -> str:
    """A bar, in eighths of a character."""
    if ascii_only:
        return "#" * round(share * width)
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return FULL * (eighths // 8) + PARTS[eighths % 8].strip()


def fitted(text: str, width: int) -> str:
    """A text that is so wide: filled with spaces, or cut."""
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
