"""What every figure has in common: sizes by column width, fonts that stay fonts, 300 dots per inch, a caption."""

from __future__ import annotations

import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any

from headscope.errors import LookError
from headscope.look.axis import Axis
from headscope.view.headline import headlines
from headscope.view.labels import model_name, shortened, visible
from headscope.view.subject import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches: one column and the whole width of a page in the usual two-column papers.
WIDTHS = {"column": 3.3, "page": 6.9}
DOTS = 300
# TrueType instead of Type 3 in PDF, which publishers refuse; text instead of outlines in SVG, which stays searchable.
SAVED = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none"}
INK, FAINT = "#1b1e25", "#666c78"
# Letters of the sentence under a figure.
SENTENCE = 110
# The mean width of a letter, in sizes of its font.
MEAN_LETTER, MEAN_BOLD_LETTER = 0.56, 0.62
# Fonts with the letters that matplotlib's own font lacks; the first ones that are installed are used.
FALLBACKS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
)


@cache
def paper() -> type[Figure]:
    """The class of our figures: matplotlib's, saved with fonts embedded as TrueType, whatever is set elsewhere."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    class Paper(Figure):
        def savefig(self, *arguments: Any, **options: Any) -> None:
            with rc_context(SAVED):  # type: ignore[arg-type, unused-ignore]
                super().savefig(*arguments, **options)

    return Paper


def inches(width: float | str | None) -> float | None:
    """The width of a figure in inches.

    Raises:
        LookError: neither a positive number nor the name of a width.
    """
    found = WIDTHS.get(width) if isinstance(width, str) else width
    if width is not None and (found is None or not found > 0):
        raise LookError(f"figure: width={width!r}; give inches, 'column' ({WIDTHS['column']}) or 'page' (6.9).")
    return found


def said_of(subject: Subject, at: int, row: int) -> str:
    """The name of a head and its sentence."""
    number, head = subject.recording.numbers[at], subject.layers[at].head_numbers[row]
    said = headlines(subject)[number, head].text
    return said if subject.single else f"Layer {number} · head {head}: {said}"


def caption(figure: Figure, axis: Axis, model: str) -> None:
    """The text and the model, small, at the foot of a figure."""
    words = [
        visible(label).replace("␣", "") for label, special in zip(axis.labels, axis.special, strict=True) if not special
    ]
    text = shortened(" ".join(words), SENTENCE) if axis.kind == "tokens" else ""
    said = " · ".join(part for part in (text, visible(model_name(model)) if model else "") if part)
    if said:
        said = filled(said, figure.get_figwidth(), 7.0)
        figure.supxlabel(said, x=0.012, ha="left", fontsize=7, color=FAINT, parse_math=False, family=family())


def filled(text: str, inches: float, size: float) -> str:
    """A text in lines that are no longer than so many inches, in plain letters of a size in points."""
    return textwrap.fill(text, max(12, int(inches * 72 / (MEAN_LETTER * size))))


def in_lines(text: str, inches: float, size: float) -> tuple[str, bool]:
    """A text that may be wider than its figure, and whether matplotlib is to wrap it.

    matplotlib measures a text with dollars as a formula when it wraps it, whatever `parse_math` says, and raises where
    it is none. Such a text is wrapped here, by the mean width of a letter.
    """
    if "$" not in text:
        return text, True
    return textwrap.fill(text, max(12, int(inches * 72 / (MEAN_BOLD_LETTER * size)))), False


def family() -> list[str]:
    """matplotlib's own font, and those of FALLBACKS that are installed."""
    from matplotlib.font_manager import fontManager

    return ["DejaVu Sans", *sorted(set(FALLBACKS) & set(fontManager.get_font_names()), key=FALLBACKS.index)]
