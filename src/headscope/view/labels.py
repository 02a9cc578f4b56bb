"""Labels that a person can read: nothing in them is invisible, and nothing in them can turn the text around it."""

from __future__ import annotations

import unicodedata

MARKS = {" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"}
ELLIPSIS = "…"

# Joiners that emoji and many scripts are written with: invisible, but part of the letters beside them.
JOINERS = "\u200c\u200d"


def visible(text: str) -> str:
    """The text with all white space and control characters written out, and the spaces inside it left alone.

    Example:
        >>> visible(" the cat\\n")
        '␣the cat⏎'
        >>> visible("a\\u202eb"), visible("")
        ('a<U+202E>b', '<empty>')
    """
    if not text:
        return "<empty>"
    inner = text.strip(" ")
    before = len(text) - len(text.lstrip(" "))
    after = len(text) - before - len(inner)
    return MARKS[" "] * before + sentence(inner) + MARKS[" "] * after


def seen(letter: str) -> str:
    """One character as it is, or its name where it could not be seen."""
    if letter in MARKS:
        return MARKS[letter]
    invisible = unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Cn", "Zs", "Zl", "Zp")
    return f"<U+{ord(letter):04X}>" if invisible and letter not in JOINERS else letter


def shortened(text: str, longest: int) -> str:
    """The text, or its beginning and an ellipsis where it has more than `longest` characters.

    Example:
        >>> shortened("Donaudampfschiff", 8)
        'Donauda…'
    """
    return text if len(text) <= longest else text[: longest - 1] + ELLIPSIS


def every(count: int, fit: int) -> int:
    """Label every how many-th of `count` positions, when `fit` labels fit: 1, 2, 5, 10, 20, 50, …

    Example:
        >>> every(12, 40), every(512, 40)
        (1, 20)
    """
    step, factors = 1, (2.0, 2.5, 2.0)
    turn = 0
    while count > step * max(1, fit):
        step = int(step * factors[turn % 3])
        turn += 1
    return step


def sentence(text: str) -> str:
    """A text with everything that is invisible in it written out, but for its spaces."""
    return "".join(letter if letter == " " else seen(letter) for letter in text)
