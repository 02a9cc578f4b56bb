"""How a command ends: errors become one line and an exit code, a closed pipe ends it quietly."""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

import typer

from headscope.characters import sentence
from headscope.errors import HeadscopeError

# Exit codes: the input was wrong or something is missing; headscope itself is wrong; the user pressed Ctrl-C; whoever
# read the output has closed it, as a shell writes the end by SIGPIPE.
WRONG_INPUT, DEFECT, INTERRUPTED, CLOSED = 2, 1, 130, 128 + getattr(signal, "SIGPIPE", 13)

# typer does not export the class of all its errors of usage, but it is the parent of one that it does export.
UsageError = typer.BadParameter.__bases__[0]
# What torch says where memory is spent, or where a size does not even fit into a number.
NO_MEMORY = (
    "can't allocate memory", "not enough memory", "out of memory", "Storage size calculation overflowed",
    "numel: integer multiplication overflow", "Overflow when unpacking long", "invalid size, greater than",
)  # fmt: skip


def described(error: BaseException) -> tuple[str, int]:
    """An error as one line with the way out, and the exit code that goes with it."""
    if isinstance(error, UsageError):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "headscope"
        return f"{error.format_message().rstrip('.')}. See: {path} --help", WRONG_INPUT  # type: ignore[attr-defined]
    if isinstance(error, MemoryError) or is_memory(error):
        return "there is not enough memory for this. Give a shorter text or a smaller model.", WRONG_INPUT
    if isinstance(error, HeadscopeError):
        return str(error), WRONG_INPUT
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename is not None else ""
        if not place and not is_here():
            return "the folder that this runs in was removed. Go to another one.", WRONG_INPUT
        return f"{place}{error.strerror}. Give another path, or make this one usable.", WRONG_INPUT
    kind = type(error).__name__
    return f"this is a defect of headscope, please report it: {kind}: {error}. Add --debug to see where.", DEFECT


def is_memory(error: BaseException) -> bool:
    """Whether a library says in words of its own that memory does not suffice."""
    return isinstance(error, RuntimeError | OverflowError) and any(words in str(error) for words in NO_MEMORY)


def is_here() -> bool:
    """Whether the working directory is still there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def is_closed(error: BaseException | None) -> bool:
    """Whether this error is that the reader of the output has closed it, or came of that."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            return True
        seen.add(id(error))
        error = error.__context__
    return False


def complain(line: str, to: TextIO | None = None) -> None:
    """Say one line on stderr, whatever line breaks and controls the message had."""
    with suppress(OSError, ValueError):
        print(f"headscope: {sentence(' '.join(line.split()))}", file=to or sys.stderr)


def prepare_streams() -> None:
    """A terminal that lacks a character shows a question mark; one that is closed is silent."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def finish_streams() -> bool:
    """Write what is left of the output; false where its reader has closed it."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not is_closed(error):
            raise
        # Python flushes once more at its own end, and would complain of it.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


@contextmanager
def without_notices(debug: bool) -> Iterator[None]:
    """Warnings and logs of other libraries do not come between the lines of a command; with --debug they do."""
    if debug:
        yield
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().removeHandler(handler)
