"""A text and a model, or a folder -> a recording: where the commands begin."""

from __future__ import annotations

import textwrap
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from headscope.cli.source import read_text
from headscope.cli.status import busy, collecting_later
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.recording.recording import Recording

MODEL = "A folder, or a name on the Hugging Face Hub; the packaged all-MiniLM-L6-v2 unless given."
# Letters of a text that stand at the top of a page.
TITLE = 90
PAIR = "A second text: the second segment, or what the decoder of an encoder-decoder model reads."


def is_recording(given: str) -> bool:
    """Whether an argument is a folder, which only a recording can be, and not a text or a text file."""
    try:
        return bool(given.strip()) and Path(given).is_dir()
    except (OSError, ValueError):
        # Longer than the name of any folder, or with a zero byte: it is text.
        return False


def read(given: str, model: str | None = None, pair: str | None = None) -> tuple[Recording, str]:
    """The recording in a folder, or that of a model which runs on a text; and what it is of, as a title.

    Raises:
        HeadscopeError: a model or a second text for a recording, which has its own; as `read_text` and `recorded`.
    """
    if not is_recording(given):
        text, second = read_text(given), None if pair is None else read_text(pair)
        return recorded(text, second, model), textwrap.shorten(text, TITLE, placeholder=" …")
    for option, value in (("--model", model), ("--pair", pair)):
        if value is not None:
            raise HeadscopeError(f"{given} is a recording, which has its model and text in it. Leave out {option}.")
    import headscope as hs

    return hs.load(given), Path(given).resolve().stem


def recorded(text: str, pair: str | None, name: str | None) -> Recording:
    """Run a model on a text and record it; what is not as one would think is said on stderr."""
    import headscope as hs
    from headscope.hf import models
    from headscope.hf.text import encode, run

    with busy(f"loading {name or models.PACKAGED_NAME}"), collecting_later():
        quiet()
        loaded = models.load(name)
    with busy("reading"):
        encoded = encode(loaded, text, pair)
        with hs.record(loaded.model) as recording:
            run(loaded, encoded)
    recording.model = loaded.name
    recording.tokens(encoded.axis, side=None if encoded.decoder is None else "encoder")
    if encoded.decoder is not None:
        recording.tokens(encoded.decoder, side="decoder")
    if encoded.cut:
        warn(
            f"the text has {encoded.axis.length + encoded.cut} tokens and {loaded.name} takes {loaded.limit}: "
            f"the last {encoded.cut} were cut. Give a model that takes more with --model, or a shorter text."
        )
    if loaded.absent:
        warn(
            f"{len(loaded.absent)} weights of {loaded.name} are not in its files and therefore random "
            f"({loaded.absent[0]}, ...): what you see is not the trained model."
        )
    return recording


def quiet() -> None:
    """No progress bars and no notices of transformers between our lines; errors still arrive as exceptions."""
    with suppress(ImportError):  # models.load says what is missing and how to get it
        from transformers.utils import logging

        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def warn(line: str) -> None:
    """Say a line on stderr and go on."""
    typer.echo(f"headscope: {line}", err=True)
