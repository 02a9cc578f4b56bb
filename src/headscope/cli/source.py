"""TEXT|FILE|- -> text."""

from __future__ import annotations

import sys
from pathlib import Path

from headscope.errors import HeadscopeError

# Words that end so, or that have a slash in them, are meant as a file, also when it is not there.
TEXT_SUFFIXES = {".txt", ".md", ".rst", ".text", ".py", ".json", ".csv", ".html"}
# More than any model reads; a file of this size was given by mistake.
LARGEST = 64 * 2**20


def read_text(given: str) -> str:
    """The text that an argument stands for: standard input for "-", a file if there is one of that name, or itself.

    Raises:
        HeadscopeError: a file that does not exist or holds no text, or a text without a single character.
    """
    if given == "-":
        return _not_empty(_decode(sys.stdin.buffer.read(LARGEST + 1), "standard input"), "standard input is empty")
    path = Path(given)
    if _is_file(path):
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        return _not_empty(_decode(content, f"the file {given}"), f"the file {given} is empty")
    if given.split() == [given] and (path.suffix in TEXT_SUFFIXES or "/" in given):
        if path.is_dir():
            raise HeadscopeError(f"{given} is a folder. Give a text, a text file, or - for standard input.")
        raise HeadscopeError(
            f"there is no file {given}. Give one that exists; if these characters are the text itself, pipe them: "
            f"echo '{given}' | headscope view -"
        )
    return _not_empty(given, "the text is empty")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # Longer than the name of any file, or with a zero byte: it is text.
        return False


def _decode(content: bytes, what: str) -> str:
    if len(content) > LARGEST:
        raise HeadscopeError(f"{what} has more than {LARGEST // 2**20} MiB, which no model reads. Give a shorter text.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HeadscopeError(
            f"{what} is no UTF-8 text (byte {error.start} is {content[error.start]:#04x}). "
            "Give a text file; convert other encodings with iconv -t UTF-8."
        ) from error


def _not_empty(text: str, complaint: str) -> str:
    if not text.strip():
        raise HeadscopeError(f"{complaint}. Give at least one word.")
    return text
