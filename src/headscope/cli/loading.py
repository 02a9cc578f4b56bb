"""Loading a model without a word of the libraries that do it, and what it is called."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from headscope.characters import shortened

# Letters of a name that stand in a title.
LONGEST = 90


def shown_name(name: str) -> str:
    """The name of a model as a title: of a path only its last part."""
    return shortened(Path(name).name if len(name) > LONGEST else name, LONGEST)


def quiet() -> None:
    """No progress bars and no notices of transformers between our lines; errors still arrive as exceptions."""
    with suppress(ImportError):  # models.load says what is missing and how to get it
        from transformers.utils import logging

        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
