"""A recording in the terminal: every head as a small picture, one head with its labels, and the findings in words."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from headscope.characters import printable
from headscope.look.axis import Axis
from headscope.look.head import Head
from headscope.view.blocks import Ink, joined, stretched
from headscope.view.labels import every, sentence, visible
from headscope.view.picture import picture, top
from headscope.view.subject import Start, Subject, head_names

# Characters for a head in the grid, largest first, and the gap beside it. A character is twice as high as wide, so an
# odd number leaves the lower half of its last line free: a gap of the same size.
SIZES = ((13, 1), (11, 1), (9, 1), (7, 1), (5, 1), (3, 1), (2, 0), (1, 0))
MOST_LINES = 72
WIDEST_LABEL, TALLEST_LABEL = 18, 8
CELLS = (4, 3, 2)  # characters for a weight in the map of one head, widest first
WIDEST_PICTURE = 96

PLAIN = str.maketrans({"→": ">", "…": ".", "␣": "_", "·": "."})
Lines = Iterator[Segment | Text]
FAINT, STRONG = Style(dim=True), Style(bold=True)


class Encodable:
    """What a console can write: letters that its encoding lacks become the nearest that it has."""

    def __init__(self, group: Group) -> None:
        self.group = group

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        encoding = options.encoding
        for segment in console.render(self.group, options):
            text = segment.text
            try:
                text.encode(encoding)
            except UnicodeEncodeError:
                text = text.translate(PLAIN).encode(encoding, "replace").decode(encoding)
            yield segment._replace(text=text)


def view(subject: Subject, start: Start, *, title: str = "", most: int = 8) -> Encodable:
    """All that a terminal shows of a recording or a head, ready to be printed by rich; `most` findings."""
    layer = subject.layers[start.layer]
    parts: list[RenderableType] = [Text(sentence(title), style=STRONG), Text()] if title else []
    name = "One head"
    if not subject.single:
        parts += [Text.assemble(("Heads", STRONG), ("  layers down, heads along", FAINT)), Grid(subject), Text()]
        name = f"Layer {subject.recording.numbers[start.layer]} head {layer.head_numbers[start.head]}"
    parts += [Text.assemble((name, STRONG), ("  queries down, keys along", FAINT)), Map(layer.head(start.head))]
    if subject.findings:
        parts += [Text(), Text("Findings", style=STRONG), *findings(subject, most)]
    if subject.times is not None:
        heads = ", ".join(f"{number}.{head}" for number, head in subject.times.heads)
        parts += [Text(), Text.assemble(("Spoken", STRONG), (f"  by the weights of heads {heads}", FAINT))]
        parts.append(Text(printable(str(subject.times))))
    if subject.missed:
        parts += [Text(), Text("Not recorded, though they looked like attention", style=STRONG)]
        parts += [Text(sentence(f"{path} ({name}): {reason}")) for path, name, reason in subject.missed]
    return Encodable(Group(*parts))


def findings(subject: Subject, most: int) -> Iterator[RenderableType]:
    """The most informative findings, and how many more there are."""
    for finding in subject.findings[:most]:
        yield Text(sentence(finding.text))
    if len(subject.findings) > most:
        yield Text(
            f"and {len(subject.findings) - most} more; the page (hs.page, headscope view) has a line for every head",
            style=FAINT,
        )


class Grid:
    """Every head as a small picture: layers down, heads along."""

    def __init__(self, subject: Subject) -> None:
        self.layers, self.numbers = subject.layers, subject.recording.numbers

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Lines:
        ink = Ink(console, options)
        margin = max(len(str(number)) for number in self.numbers) + 1
        most = max(layer.heads for layer in self.layers)
        size, gap = grid_size(options.max_width - margin, most, len(self.layers))
        along = max(1, (options.max_width - margin + gap) // (size + gap))
        # Where not all heads fit beside each other, the next ones follow below.
        for first in range(0, most, along):
            heads = range(first, min(first + along, most))
            yield Text(" " * margin + self._numbers(heads, size + gap), style=FAINT)
            for number, layer in zip(self.numbers, self.layers, strict=True):
                pictures = [small(layer.head(head), size, ink) for head in heads if head < layer.heads]
                for line, parts in enumerate(zip(*pictures, strict=True)):
                    yield Segment(set_cell_size(str(number) if line == 0 else "", margin), FAINT)
                    yield from joined(parts, gap)
                    yield Segment.line()

    def _numbers(self, heads: range, width: int) -> str:
        """The numbers of the heads, as many as fit."""
        names = head_names(self.layers)[heads.start : heads.stop]
        step = math.ceil((max(map(len, names)) + 1) / width)
        return "".join(set_cell_size(name, width * step) for name in names[::step]).rstrip()


def grid_size(width: int, heads: int, layers: int) -> tuple[int, int]:
    """How many characters a head gets, and the gap beside it, so that all fit into the width and are not too long."""
    for size, gap in SIZES:
        if heads * (size + gap) - gap <= width and layers * math.ceil(size / 2) <= MOST_LINES:
            return size, gap
    return SIZES[-1]


def small(head: Head, size: int, ink: Ink) -> list[list[Segment]]:
    """A head, `size` characters wide and half as many lines high."""
    rows = size if ink.colour else math.ceil(size / 2)
    weights = picture(head, rows, size)
    return ink.lines(stretched(weights.numpy(), rows, size), top(weights, len(head.k)))


class Map:
    """One head with the labels of its queries and keys; pooled where it is larger than the terminal."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Lines:
        ink = Ink(console, options)
        queries, keys = len(self.head.q), len(self.head.k)
        labels = [visible(label) for label in self.head.queries.labels]
        margin = min(WIDEST_LABEL, max(map(cell_len, labels)), options.max_width // 3) + 1
        room = max(4, options.max_width - margin)
        width = next((cell for cell in CELLS if cell * keys <= room), 0)
        if width and queries <= MOST_LINES:
            yield from self._cells(ink, margin, width)
        else:
            yield from self._pooled(ink, margin, min(room, WIDEST_PICTURE))

    def _cells(self, ink: Ink, margin: int, width: int) -> Lines:
        """Every weight in a cell of its own."""
        weights = picture(self.head, len(self.head.q), len(self.head.k))
        largest = top(weights, len(self.head.k))
        for letters, faint in upright(self.head.keys, width):
            yield Segment(" " * margin)
            yield from (Segment(letter, FAINT if dim else None) for letter, dim in zip(letters, faint, strict=True))
            yield Segment.line()
        for query, row in enumerate(weights.tolist()):
            yield label_segment(self.head.queries, query, margin)
            yield from (ink.cell(weight, width, largest) for weight in row)
            yield Segment.line()
        yield from scale(ink, margin, largest, "numbers in percent" if width > 2 else "")

    def _pooled(self, ink: Ink, margin: int, width: int) -> Lines:
        """The largest weight of each block of cells."""
        queries, keys = len(self.head.q), len(self.head.k)
        columns = min(width, keys)
        lines = max(1, min(MOST_LINES // 2, math.ceil(queries / 2), round(columns * queries / keys / 2) or 1))
        weights = picture(self.head, ink.rows(lines), columns)
        largest = top(weights, keys)
        shown = ink.lines(weights.numpy(), largest)
        per_line = queries / len(shown)
        step = every(keys, columns // 8)
        yield Text(" " * margin + ruler(keys, columns, step), style=FAINT)
        for line, parts in enumerate(shown):
            query = int(line * per_line)
            yield Segment(" " * margin) if line % 3 else label_segment(self.head.queries, query, margin)
            yield from parts
            yield Segment.line()
        yield from scale(ink, margin, largest, f"the largest weight of each block of {keys / columns:.3g} keys")


def ruler(keys: int, columns: int, step: int) -> str:
    """The numbers of every `step`-th key over a picture that is so many columns wide."""
    line = ""
    for key in range(0, keys, step):
        place = key * columns // keys
        if place + len(str(key)) <= columns:
            line = line.ljust(place) + str(key)
    return line


def upright(axis: Axis, width: int) -> Iterator[tuple[list[str], list[bool]]]:
    """The labels written downwards, one letter in each line, ending at the map."""
    columns = []
    for label in axis.labels:
        letters = graphemes(visible(label))
        letters = letters if len(letters) <= TALLEST_LABEL else [*letters[: TALLEST_LABEL - 1], "…"]
        columns.append(letters)
    tallest = max(map(len, columns))
    for line in range(tallest):
        cells = [column[line - tallest + len(column)] if line >= tallest - len(column) else "" for column in columns]
        yield [set_cell_size(" " * ((width - 1) // 2) + cell, width) for cell in cells], list(axis.special)


def graphemes(text: str) -> list[str]:
    """Letters with the marks that belong to them."""
    letters: list[str] = []
    for letter in text:
        joins = unicodedata.combining(letter) or letter in "\u200c\u200d\ufe0f"
        if letters and (joins or letters[-1].endswith("\u200d")):
            letters[-1] += letter
        else:
            letters.append(letter)
    return letters


def label_segment(axis: Axis, position: int, margin: int) -> Segment:
    """The label of a query, at the right end of its margin."""
    label = visible(axis.labels[position])
    if cell_len(label) > margin - 1:
        label = set_cell_size(label, margin - 2) + "…"
    return Segment(" " * (margin - 1 - cell_len(label)) + label + " ", FAINT if axis.special[position] else None)


def scale(ink: Ink, margin: int, largest: float, said: str) -> Lines:
    """What the shades mean."""
    yield Segment(" " * margin + "0 ", FAINT)
    yield from ink.ramp(16)
    yield Segment(f" {largest:.2f}{'  ' + said if said else ''}", FAINT)
    yield Segment.line()
