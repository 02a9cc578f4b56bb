"""TEXT|FILE|- -> text."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from headscope.characters import is_text
from headscope.errors import HeadscopeError
from headscope.files.encodings import decode
from headscope.files.first_bytes import Kind, kind_of
from headscope.files.places import shown_end
from headscope.files.replace_file import KINDS, reason

# One word that ends so, or that has a slash in it, is meant as a file, also when it is not there.
FILE_SUFFIXES = frozenset(
    [
        ".txt",
        ".md",
        ".rst",
        ".text",
        ".py",
        ".json",
        ".jsonl",
        ".csv",
        ".tsv",
        ".parquet",
        ".html",
        ".htm",
        ".xml",
        ".yaml",
        ".yml",
        ".toml",
        ".ini",
        ".cfg",
        ".log",
        ".tex",
        ".srt",
        ".pdf",
        ".doc",
        ".docx",
        ".odt",
        ".rtf",
        ".epub",
        ".xls",
        ".xlsx",
        ".ods",
        ".ppt",
        ".pptx",
        ".zip",
        ".gz",
        ".tar",
        ".xz",
        ".bz2",
        ".7z",
        ".zst",
        ".png",
        ".jpg",
        ".jpeg",
        ".gif",
        ".webp",
        ".bmp",
        ".tif",
        ".tiff",
        ".heic",
        ".avif",
        ".svg",
        ".wav",
        ".flac",
        ".ogg",
        ".opus",
        ".mp3",
        ".m4a",
        ".aiff",
        ".mp4",
        ".mkv",
        ".webm",
        ".c",
        ".h",
        ".cpp",
        ".js",
        ".ts",
        ".java",
        ".go",
        ".rs",
        ".sh",
        ".ipynb",
        ".pt",
        ".pth",
        ".bin",
        ".safetensors",
        ".headscope",
    ]
)
# More than any model reads; a file of this size was given by mistake.
LARGEST = 64 * 2**20


def read_text(given: str, encoding: str | None = None) -> str:
    """The text that an argument stands for: standard input for "-", a file if there is one of that name, or itself.

    Args:
        encoding: of a file or standard input: UTF-8, or what a byte order mark says, unless given.

    Raises:
        HeadscopeError: a file that does not exist or holds no text, or a text without a single character.
    """
    if given == "-":
        return _not_empty(_text(standard_input(), "standard input", encoding), "standard input is empty")
    path = file_of(given)
    if path is None:
        return _not_empty(_encodable(given), "the text is empty")
    return _not_empty(_text(content_of(path), f"the file {given}", encoding), f"the file {given} is empty")


def file_of(given: str) -> Path | None:
    """The file that an argument names; None where it is the text itself.

    Raises:
        HeadscopeError: one word that can only be meant as a file, and there is none; or the name of a pipe, a device or
            a link that leads nowhere.
    """
    for path in (Path(given), _home(given)):
        try:
            if path is not None and path.is_file():
                return path
        except (OSError, ValueError):
            pass  # longer than the name of any file, or with a zero byte: it is text
    refuse_special(given)
    if given.split() != [given]:
        return None
    # So long a word may have slashes in it; no file can have the name.
    looks = Path(given).suffix.lower() in FILE_SUFFIXES or "/" in given or given.startswith("~")
    if not looks and given not in (".", ".."):
        return None
    if is_folder(given):
        raise HeadscopeError(f"{given} is a folder. Give a text, a text file, or - for standard input.")
    name = shown_end(given)
    raise HeadscopeError(
        f"there is no file {name}. Give one that exists; if these characters are the text itself, pipe them: "
        f"echo '{name}' | headscope view -"
    )


def refuse_special(given: str) -> None:
    """Raise `HeadscopeError` where an argument names something that is there and is neither a file nor a folder."""
    try:
        mode = os.lstat(given).st_mode
    except (OSError, ValueError):
        return  # nothing has the name, or nothing can
    if stat.S_ISDIR(mode):
        return
    kind = next((name for test, name in KINDS.items() if test(mode)), None)
    if kind is None and os.path.exists(given):
        # A link to something that is no file, such as /dev/stdin.
        mode = os.stat(given).st_mode
        kind = None if stat.S_ISDIR(mode) else next((name for test, name in KINDS.items() if test(mode)), None)
        if kind is None:
            return
    raise HeadscopeError(
        f"{shown_end(given)} is {kind or 'a link that leads nowhere'}, not a file. Give a file, or pipe the text into "
        "the command and give - for it."
    )


def is_folder(given: str) -> bool:
    """Whether an argument is the name of a folder."""
    try:
        return bool(given.strip()) and (Path(given).is_dir() or bool((home := _home(given)) and home.is_dir()))
    except (OSError, ValueError):
        # Longer than the name of any folder, or with a zero byte: it is text.
        return False


def kind_of_argument(given: str) -> tuple[Path, Kind] | None:
    """The file that an argument names and what it is, where it is a picture or a sound."""
    path = None if given == "-" else file_of(given)
    kind = None if path is None else kind_of(content_of(path, 32))
    return None if path is None or kind is None or kind.what not in ("picture", "sound") else (path, kind)


def content_of(path: Path, most: int = LARGEST + 1) -> bytes:
    """The first bytes of a file.

    Raises:
        HeadscopeError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise HeadscopeError(f"{path}: cannot be read: {reason(error)}. Give another file.") from None


def standard_input() -> bytes:
    """What is piped in.

    Raises:
        HeadscopeError: standard input is closed.
    """
    try:
        return sys.stdin.buffer.read(LARGEST + 1)
    except (AttributeError, ValueError, OSError):
        raise HeadscopeError(
            "standard input is closed. Pipe a text into the command, or give the text itself or a file."
        ) from None


def _home(given: str) -> Path | None:
    try:
        return Path(given).expanduser() if given.startswith("~") else None
    except RuntimeError:
        return None


def _text(content: bytes, what: str, encoding: str | None) -> str:
    if len(content) > LARGEST:
        raise HeadscopeError(f"{what} has more than {LARGEST // 2**20} MiB, which no model reads. Give a shorter text.")
    kind = kind_of(content)
    if kind is not None:
        advice = "Give it with a --model that reads it, or give" if kind.what in ("picture", "sound") else "Give"
        raise HeadscopeError(f"{what} is {kind.name}, not a text. {advice} a text, or a file of text.")
    return decode(content, encoding, lambda problem: HeadscopeError(f"{what}{problem}"))


def _encodable(given: str) -> str:
    if not is_text(given):
        raise HeadscopeError(
            "the text is not UTF-8, so no tokenizer reads it. Put it into a file and name its encoding, for example "
            "--encoding cp1252."
        )
    return given


def _not_empty(text: str, complaint: str) -> str:
    if not text.strip():
        raise HeadscopeError(f"{complaint}. Give at least one word.")
    return text
