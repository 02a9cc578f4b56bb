"""Bytes that a person brings -> text: byte order marks are obeyed, other encodings are named and never guessed."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path

from headscope.characters import is_text
from headscope.errors import HeadscopeError

Fail = Callable[[str], HeadscopeError]

# The longer marks first: that of UTF-32 begins like that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LONGEST_MARK = 4
# What these mean where the text does not begin with a mark: what Windows writes.
WITHOUT_MARK = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}
# What some encodings can say and no tokenizer reads.
HALF = (
    ": this holds half of a surrogate pair (U+D800 to U+DFFF), which is no text. Name another encoding, or remove it."
)
# The longest line of a corpus, in characters.
LONGEST_LINE = 2**24


def encoding_of(start: bytes, named: str | None, fail: Fail) -> str:
    """The encoding that was named, or that of a byte order mark, or UTF-8.

    Raises:
        HeadscopeError: made by `fail`: there is no such encoding.
    """
    mark = next((name for mark, name in MARKS if start.startswith(mark)), None)
    if named is None:
        return mark or "utf-8"
    try:
        "".encode(named)
        known = codecs.lookup(named).name
    except (LookupError, ValueError):
        raise fail(f": --encoding {named}: there is no such encoding of text; give one such as cp1252.") from None
    if mark is None and known in WITHOUT_MARK:
        return WITHOUT_MARK[known]
    # A mark that agrees with the name is no part of the text.
    return mark if mark is not None and known.replace("_", "-").startswith(mark.removesuffix("-sig")) else known


def decode(content: bytes, named: str | None, fail: Fail) -> str:
    """Bytes as text.

    Raises:
        HeadscopeError: made by `fail`: they are not in the encoding; with the one that they could be in.

    Example:
        >>> decode(b"caf\\xe9", "cp1252", HeadscopeError), decode(b"\\xff\\xfea\\x00", None, HeadscopeError)
        ('café', 'a')
    """
    encoding = encoding_of(content, named, fail)
    try:
        text = content.decode(encoding)
    except UnicodeError as error:
        raise fail(undecodable(error, encoding)) from None
    if not is_text(text):
        raise fail(HALF)
    return text


def lines(path: Path, named: str | None, fail: Fail) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, one after the other: a file of any size costs the memory of a line."""
    with path.open("rb") as file:
        encoding = encoding_of(file.read(LONGEST_MARK), named, fail)
    number = 0
    try:
        with path.open(encoding=encoding) as file:
            while line := file.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise fail(f", line {number}: has more than {LONGEST_LINE} characters. Break it into several.")
                if not is_text(line):
                    raise fail(f", line {number}{HALF}")
                yield number, line
    except UnicodeError as error:
        raise fail(f", after line {number}{undecodable(error, encoding)}") from None


def undecodable(error: UnicodeError, encoding: str) -> str:
    """What is wrong with bytes, and the encoding that they could be in."""
    if not isinstance(error, UnicodeDecodeError):
        return f": this is not in the encoding {encoding} ({error}). Name its encoding, for example --encoding cp1252."
    byte = error.object[error.start] if error.start < len(error.object) else 0
    near = error.object[max(0, error.start - 64) : error.start + 64]
    guess = "utf-16-le" if near.count(0) > len(near) // 4 else "cp1252"
    what = "no UTF-8 text" if encoding.startswith("utf-8") else f"not in the encoding {encoding}"
    return (
        f": this is {what} (byte {error.start} is {byte:#04x}). Name its encoding, for example --encoding {guess} "
        f"({'Windows, two bytes a letter' if guess == 'utf-16-le' else 'Windows, Western Europe'})."
    )
