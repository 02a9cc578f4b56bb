"""Weights as characters: half blocks in colour, two weights above each other, or shades where there is no colour."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from rich.color import Color
from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.style import Style

from headscope.view.colour import table

SHADES = " ░▒▓█"
ASCII_SHADES = " .:*#"
Rows = np.ndarray


class Ink:
    """How weights are drawn on one console.

    Attributes:
        colour: whether the console shows more than sixteen colours.
        unicode: whether it shows more than ASCII.
    """

    def __init__(self, console: Console, options: ConsoleOptions) -> None:
        self.colour = console.color_system in ("truecolor", "256") and not options.ascii_only
        self.unicode = not options.ascii_only
        # The dark map: a picture brings its own ground, whatever colour the terminal has.
        self.table = table("dark")

    def rows(self, lines: int) -> int:
        """How many rows of weights stand in so many lines."""
        return 2 * lines if self.colour else lines

    def lines(self, weights: Rows, largest: float) -> list[list[Segment]]:
        """A picture, one character wide for each column; minus one is what may not be seen."""
        if not self.colour:
            return [[Segment(self._shades([share(weight, largest) for weight in row]))] for row in weights.tolist()]
        if len(weights) % 2:
            weights = np.concatenate([weights, np.full((1, weights.shape[1]), -1.0)])
        pairs = np.stack([weights[::2], weights[1::2]], axis=-1)
        return [[self._half(above, below, largest) for above, below in line] for line in pairs.tolist()]

    def _half(self, above: float, below: float, largest: float) -> Segment:
        """One character that shows two weights."""
        if above < 0 and below < 0:
            return Segment(" ")
        if below < 0:
            return Segment("▀", Style(color=self._tone(above, largest)))
        if above < 0:
            return Segment("▄", Style(color=self._tone(below, largest)))
        return Segment("▀", Style(color=self._tone(above, largest), bgcolor=self._tone(below, largest)))

    def cell(self, weight: float, width: int, largest: float) -> Segment:
        """One cell of a large map: coloured, with its weight in percent where that is a tenth or more."""
        if weight < 0:
            return Segment(" " * width)
        number = str(round(100 * weight)) if weight >= (0.095 if self.colour else 0.005) and width > 2 else ""
        if not self.colour:
            dot = "·" if self.unicode else "."
            return Segment((number or dot).rjust(width))
        place = share(weight, largest)
        return Segment(number.center(width), Style(color=self._contrast(place), bgcolor=self._at(place)))

    def ramp(self, width: int) -> list[Segment]:
        """The scale from nothing to the largest weight."""
        steps = [i / (width - 1) for i in range(width)]
        if self.colour:
            return [Segment(" ", Style(bgcolor=self._at(step))) for step in steps]
        return [Segment(self._shades(steps))]

    def _tone(self, weight: float, largest: float) -> Color:
        return self._at(share(weight, largest))

    def _at(self, place: float) -> Color:
        return Color.from_rgb(*self.table[round(255 * place)].tolist())

    @staticmethod
    def _contrast(place: float) -> Color:
        """Light letters on dark cells and dark letters on light ones."""
        return Color.from_rgb(20, 22, 28) if place > 0.55 else Color.from_rgb(233, 235, 239)

    def _shades(self, places: list[float]) -> str:
        """A shade for each place between 0 and 1; hardly anything is nothing."""
        shades = SHADES if self.unicode else ASCII_SHADES
        return "".join(shades[min(4, math.ceil(4 * place - 0.25))] for place in places)


def share(weight: float, largest: float) -> float:
    """Where a weight stands between nothing and the largest one."""
    return min(1.0, weight / largest) if weight > 0 and largest > 0 else 0.0


def stretched(weights: Rows, rows: int, columns: int) -> Rows:
    """A small matrix enlarged to a size by repeating its rows and columns."""
    down, along = (np.arange(count) * have // count for count, have in zip((rows, columns), weights.shape, strict=True))
    enlarged: Rows = weights[down][:, along]
    return enlarged


def joined(parts: Sequence[Sequence[Segment]], gap: int) -> list[Segment]:
    """Pictures beside each other."""
    line: list[Segment] = []
    for i, part in enumerate(parts):
        line += [*([Segment(" " * gap)] if i and gap else []), *part]
    return line
