"""A picture or a sound and a model that reads it -> a recording."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headscope.cli.loading import quiet, shown_name
from headscope.cli.status import busy, collecting_later
from headscope.errors import HeadscopeError
from headscope.files.first_bytes import Kind

if TYPE_CHECKING:
    from headscope.recording.recording import Recording


def recorded_media(path: Path, kind: Kind, name: str | None, pair: str | None) -> Recording:
    """Run a model on a picture or a sound and record it.

    Raises:
        HeadscopeError: no model was named, or one that does not read such files, or a second text.
    """
    if name is None:
        raise HeadscopeError(
            f"{path} is {kind.name}, and the packaged model reads text. Give a model of {kind.what}s with --model."
        )
    if pair is not None:
        raise HeadscopeError(f"{path} is {kind.name}; a second text beside it is not read. Leave out --pair.")
    import headscope as hs
    from headscope.hf import models
    from headscope.hf.media import media_inputs
    from headscope.hf.text import run_inputs

    with busy(f"loading {name}"), collecting_later():
        quiet()
        loaded = models.load(name)
    with busy("reading"):
        inputs = media_inputs(loaded, path, kind.what)
        with hs.record(loaded.model) as recording:
            run_inputs(loaded, inputs, kind.what)
    recording.model = shown_name(loaded.name)
    return recording
