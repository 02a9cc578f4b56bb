"""Steps of a computation as a table: for the terminal, as Markdown, as a picture, or as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from headscope.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

COLUMNS = ("step", "formula", "shape", "parameters", "FLOPs", "bytes")


@dataclass(frozen=True)
class Step:
    """One step that was run.

    Attributes:
        name: what is made.
        formula: how it is made.
        shape: its sizes; of each, where a step makes several.
        parameters: how many learned numbers take part.
        flops: multiplications and additions.
        bytes: of memory that the result takes; 0 where it is a view of what was there.
    """

    name: str
    formula: str
    shape: tuple[int, ...]
    parameters: int = 0
    flops: int = 0
    bytes: int = 0

    def cells(self) -> tuple[str, ...]:
        """The step as the texts of a row."""
        numbers = (f"{count:,}" if count else "" for count in (self.parameters, self.flops, self.bytes))
        return self.name, self.formula, "(" + ", ".join(map(str, self.shape)) + ")", *numbers


@dataclass(frozen=True)
class Explanation:
    """What a layer did with an input, step by step; made by `hs.explain`.

    Attributes:
        title: the layer and its input.
        steps: in the order in which they ran.
        notes: what else is worth knowing, in sentences.

    Example:
        >>> from headscope.nn.multihead import MultiheadAttention
        >>> import headscope as hs, torch
        >>> [step.shape for step in hs.explain(MultiheadAttention(6, 3), torch.zeros(1, 4, 6)).steps][1]
        (1, 4, 18)
    """

    title: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """All learned numbers."""
        return sum(step.parameters for step in self.steps)

    @property
    def flops(self) -> int:
        """All multiplications and additions."""
        return sum(step.flops for step in self.steps)

    def rows(self) -> Sequence[tuple[str, ...]]:
        """The table's rows as texts, the sums last."""
        sums = Step("all", "", (), self.parameters, self.flops, sum(step.bytes for step in self.steps)).cells()
        return [*(step.cells() for step in self.steps), (*sums[:2], "", *sums[3:])]

    def __rich__(self) -> Table:
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(self.title), caption=escape("\n".join(self.notes)), caption_justify="left")
        for name in COLUMNS:
            formula = name == "formula"
            justify: Literal["left", "right"] = "right" if name in COLUMNS[3:] else "left"
            table.add_column(name, justify=justify, no_wrap=not formula, min_width=26 if formula else None)
        *rows, sums = self.rows()
        for row in rows:
            table.add_row(*map(escape, row))
        table.add_section()
        table.add_row(*map(escape, sums))
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=120, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip()

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [f"**{self.title}**", "", "| " + " | ".join(COLUMNS) + " |", "|---|---|---|---:|---:|---:|"]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self.rows()]
        return "\n".join(lines + [f"\n{note}" for note in self.notes]) + "\n"

    def figure(self) -> Figure:
        """The steps as a picture, from the top down: what is made, how, and its shape.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise MissingExtra("figure: needs matplotlib; install it with: pip install 'headscope[plot]'") from None
        figure = Figure(figsize=(9, 0.62 * len(self.steps) + 0.8), layout="constrained")
        axes = figure.add_subplot(title=self.title)
        axes.set(xlim=(0, 1), ylim=(len(self.steps) - 0.4, -0.6))
        axes.axis("off")
        box = {"boxstyle": "round,pad=0.4", "facecolor": "#eef3fb", "edgecolor": "#4a6fa5"}
        for place, step in enumerate(self.steps):
            name, formula, shape = step.cells()[:3]
            if place:
                # From the lower edge of the box above to the upper edge of this one.
                axes.annotate(
                    "", (0.5, place - 0.26), (0.5, place - 0.74), arrowprops={"arrowstyle": "->", "color": "#4a6fa5"}
                )
            axes.text(0.5, place, f"{name}   {shape}", ha="center", va="center", bbox=box)
            axes.text(0.98, place, formula, ha="right", va="center", color="#555555", fontsize="small")
            if step.parameters:
                axes.text(
                    0.02, place, f"{step.parameters:,} parameters", va="center", color="#555555", fontsize="small"
                )
        return figure
