"""Text that a person or a terminal is shown: nothing in it is invisible, and nothing in it acts on what is around it.

Everything that reaches a terminal, a page or a figure and that came from outside (labels, names, paths, messages of
other libraries) passes through here: control characters, escapes, C1, bidirectional overrides, NUL and lone surrogates
are written as `<U+202E>`, so that no text can move the cursor, change colours or turn the line around it.
"""

from __future__ import annotations

import unicodedata

MARKS = {" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"}
ELLIPSIS = "…"

# Zero-width joiners belong to emoji and to the scripts from Arabic on; between other letters they only hide.
JOINERS = "\u200c\u200d"
JOINED_FROM = 0x0600
# Letters and marks by their category, that fill no pixel: fillers of Hangul, the empty Braille cell, a grapheme joiner.
BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
# Controls, formats, surrogates, unassigned, and spaces and separators other than the plain space.
INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Cn", "Zs", "Zl", "Zp"))


def visible(text: str) -> str:
    """A label with all white space and control characters written out, and the spaces inside it left alone.

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


def sentence(text: str) -> str:
    """A text of one line with everything that is invisible in it written out, but for its spaces.

    Example:
        >>> sentence("two words\\x1b[31m")
        'two words<U+001B>[31m'
    """
    if text.isprintable() and BLANK.isdisjoint(text):
        return text
    return "".join(shown(text, place) for place in range(len(text)))


def printable(text: str) -> str:
    """A text of several lines, ready for a terminal: its line breaks stay, everything else is as in `sentence`.

    Example:
        >>> printable("one\\ntwo\\x07")
        'one\\ntwo<U+0007>'
    """
    return "\n".join(map(sentence, text.split("\n")))


def shown(text: str, place: int) -> str:
    """One character of a text as it is, or its name where it could not be seen."""
    letter = text[place]
    if letter in MARKS:
        return " " if letter == " " else MARKS[letter]
    if letter in JOINERS and joins(text, place):
        return letter
    invisible = letter in BLANK or unicodedata.category(letter) in INVISIBLE
    return f"<U+{ord(letter):04X}>" if invisible else letter


def joins(text: str, place: int) -> bool:
    """Whether a joiner stands between two letters or emoji of a kind that is written with joiners."""
    beside = text[place - 1 : place] + text[place + 1 : place + 2] if place else ""
    return len(beside) == 2 and all(
        ord(one) >= JOINED_FROM and one not in BLANK and unicodedata.category(one)[0] in "LMS" for one in beside
    )


def shortened(text: str, longest: int) -> str:
    """The text, or its beginning and an ellipsis where it has more than `longest` characters.

    Example:
        >>> shortened("Donaudampfschiff", 8)
        'Donauda…'
    """
    return text if len(text) <= longest else text[: longest - 1] + ELLIPSIS


def is_text(text: str) -> bool:
    """Whether UTF-8 can write a text: it has no half of a surrogate pair alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def counted(count: int, noun: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "file"), counted(0, "file")
        ('1 file', '0 files')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
