"""A picture or a sound and a model that reads it -> a recording."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headscope.cli.loading import quiet, shown_name
from headscope.cli.status import busy, collecting_later
from headscope.errors import HeadscopeError
from headscope.files.first_bytes import Kind

if TYPE_CHECKING:
    from headscope.look.axis import Axis
    from headscope.recording.recording import Recording


def recorded_media(
    path: Path, kind: Kind, name: str | None, pair: str | None, generate: int | None = None
) -> tuple[Recording, list[str]]:
    """Run a model on a picture or a sound and record it, and what it made at each step.

    Raises:
        HeadscopeError: no model was named, or one that does not read such files, or a second text.
    """
    if name is None:
        raise HeadscopeError(
            f"{path} is {kind.name}, and the packaged model reads text. Give a model of {kind.what}s with --model."
        )
    if pair is not None:
        raise HeadscopeError(
            f"{path} is {kind.name}, and --pair is a second text beside a text. Leave out --pair; a text about a "
            "picture is given after it."
        )
    import headscope as hs
    from headscope.cli.generating import able
    from headscope.cli.generating import generate as made_by
    from headscope.hf import models
    from headscope.hf.media import media_inputs
    from headscope.hf.text import run_inputs

    with busy(f"loading {name}"), collecting_later():
        quiet()
        loaded = models.load(name)
        loaded = loaded if generate is None else able(loaded)
    with busy("reading"):
        inputs = media_inputs(loaded, path, kind.what)
        with hs.record(loaded.model) as recording:
            if generate is None:
                run_inputs(loaded, inputs, kind.what)
            else:
                made_by(loaded, dict(inputs), generate)
    recording.model = shown_name(loaded.name)
    name_source(recording, path)
    return recording, [] if generate is None else list(recording.layers[-1].queries[0].labels[1:])


def recorded_together(
    path: Path, text: str, name: str | None, generate: int | None = None
) -> tuple[Recording, list[str]]:
    """Run a model on a picture and a text together and record it, and what it made at each step.

    Raises:
        HeadscopeError: no model was named, or one that does not read both.
    """
    if name is None:
        raise HeadscopeError(
            f"{path} is a picture beside a text, and the packaged model reads text; give a model of both with --model."
        )
    import headscope as hs
    from headscope.cli.generating import able, generated
    from headscope.cli.generating import generate as made_by
    from headscope.hf import models
    from headscope.hf.picture_and_text import together_inputs
    from headscope.hf.text import run_inputs

    with busy(f"loading {name}"), collecting_later():
        quiet()
        loaded = models.load(name, together=True)
        loaded = loaded if generate is None else able(loaded)
    made: list[str] = []
    with busy("reading"):
        inputs = together_inputs(loaded, path, text)
        with hs.record(loaded.model) as recording:
            if generate is None:
                run_inputs(loaded, inputs, "picture and text")
            else:
                ids = made_by(loaded, inputs, generate)
                read = inputs["decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"][0].tolist()
                # Some models give back only what they made.
                made = generated(loaded, ids, len(read))[1] if ids[: len(read)] == read else []
    recording.model = shown_name(loaded.name)
    name_source(recording, path)
    return recording, made


def name_source(recording: Recording, path: Path) -> None:
    """Give the axes of patches and frames the name of their file."""
    for layer in recording.layers:
        for side in ("queries", "keys"):
            setattr(layer, side, [named(axis, path) for axis in getattr(layer, side)])


def named(axis: Axis, path: Path) -> Axis:
    """The axis of patches or frames with the file that they come from."""
    return replace(axis, source=path.name) if axis.kind in ("patches", "frames") else axis
