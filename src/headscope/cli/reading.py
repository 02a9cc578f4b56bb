"""A text and a model, or a folder -> a recording: where the commands begin."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from headscope.characters import shortened
from headscope.cli.loading import quiet, shown_name
from headscope.cli.recordings import note_on, recording_named
from headscope.cli.source import file_of, is_folder, kind_of_argument, read_text
from headscope.cli.status import busy, collecting_later, warn
from headscope.errors import HeadscopeError

if TYPE_CHECKING:
    from headscope.hf.models import Loaded
    from headscope.hf.text import Encoded
    from headscope.recording.recording import Recording

MODEL = "A folder, or a name on the Hugging Face Hub; the packaged all-MiniLM-L6-v2 unless given."
# Letters of a text that stand at the top of a page.
TITLE = 90
BESIDE = "A text about a picture, for a model that reads both; a text, a file of text, or -."
PAIR = "A second text: the second segment, or what the decoder of an encoder-decoder model reads."


ENCODING = "Of a file or standard input, such as cp1252; UTF-8, or by its byte order mark, unless given."


class Read(NamedTuple):
    """What a command works on: a recording, what it is of, and what the model made at each step where it generated."""

    recording: Recording
    title: str
    made: list[str]


def title_of(text: str) -> str:
    """The beginning of a text as a title; a text without spaces is cut within its word.

    Example:
        >>> title_of("one  two"), len(title_of("a" * 10**6))
        ('one two', 90)
    """
    start = " ".join(text[: 10 * TITLE].split())
    if len(text) <= 10 * TITLE and len(start) <= TITLE:
        return start
    words = textwrap.shorten(start, TITLE, placeholder=" …")
    return words if len(words) > TITLE // 2 else shortened(start, TITLE)


def titles_of(*texts: str) -> str:
    """Two texts as one title, each cut to its share of it."""
    return " / ".join(shortened(title_of(text), TITLE // len(texts)) for text in texts)


def read(
    given: str,
    model: str | None = None,
    pair: str | None = None,
    encoding: str | None = None,
    generate: int | None = None,
    beside: str | None = None,
) -> Read:
    """The recording in a folder, or that of a model which runs on a text; and what it is of, as a title.

    Args:
        beside: a text that is read together with a picture; either may come first.

    Raises:
        HeadscopeError: a model, a second text or an encoding for a recording, which has its own; as `read_text` and
            `recorded`.
    """
    if beside is not None:
        return read_together(given, beside, model, pair, encoding, generate)
    folder = recording_named(given)
    shared, title = (None, "") if folder is not None else unpacked(given)
    note = note_on(given, folder)
    if note is not None:
        warn(note)
    if shared is None and folder is None:
        media = kind_of_argument(given)
        if media is not None:
            from headscope.cli.media import recorded_media

            found, made = recorded_media(*media, model, pair, generate)
            return Read(found, title_of(media[0].name), made)
        text, second = read_text(given, encoding), None if pair is None else read_text(pair, encoding)
        found, made = recorded(text, second, model, generate)
        return Read(found, title_of(text) if second is None else titles_of(text, second), made)
    for option, value in (
        ("--model", model),
        ("--pair", pair),
        ("--encoding", encoding),
        ("--generate", generate),
    ):
        if value is not None:
            raise HeadscopeError(f"{given} is a recording, which has its model and text in it. Leave out {option}.")
    import headscope as hs

    path = folder or Path(given)
    return Read(hs.load(shared or path), title or path.resolve().stem, [])


def read_together(
    given: str, beside: str, model: str | None, pair: str | None, encoding: str | None, generate: int | None
) -> Read:
    """The recording of a model that runs on a picture and a text together; either may come first.

    Raises:
        HeadscopeError: not one picture and one text, or --pair.
    """
    kinds = [None if recording_named(one) is not None else kind_of_argument(one) for one in (given, beside)]
    found = [one for one in kinds if one is not None and one[1].what == "picture"]
    if len(found) != 1 or any(one is not None and one[1].what != "picture" for one in kinds):
        raise HeadscopeError(
            f"{shortened(given, TITLE)} and {shortened(beside, TITLE)}: of two inputs one is a picture and the other a "
            "text about it. A second text goes with --pair; quote a text that has spaces."
        )
    if pair is not None:
        raise HeadscopeError("--pair is a second text beside a text, and here one is beside a picture. Leave it out.")
    from headscope.cli.media import recorded_together

    path, text = found[0][0], read_text(beside if kinds[1] is None else given, encoding)
    recording, made = recorded_together(path, text, model, generate)
    return Read(recording, titles_of(path.name, text), made)


def unpacked(given: str) -> tuple[Path | None, str]:
    """The folder of the recording in a file that `headscope share` wrote, and its title; None for anything else."""
    path = None if given == "-" or is_folder(given) else file_of(given)
    if path is None:
        return None, ""
    from headscope.share.unpack import is_shared, recording_of

    if not is_shared(path):
        return None, ""
    folder, content = recording_of(path)
    return folder, title_of(content.title)


def recorded(text: str, pair: str | None, name: str | None, generate: int | None = None) -> tuple[Recording, list[str]]:
    """Run a model on a text and record it, and what it made at each step; what is unexpected is said on stderr."""
    import headscope as hs
    from headscope.cli.generating import able, generated
    from headscope.cli.generating import generate as made_by
    from headscope.hf.text import encode, run

    loaded = loaded_model(name)
    loaded = loaded if generate is None else able(loaded)
    with busy("reading"):
        encoded = encode(loaded, text, pair)
        ids: list[int] = []
        with hs.record(loaded.model) as recording:
            if generate is None:
                run(loaded, encoded)
            else:
                ids = made_by(loaded, encoded.inputs, generate)
    recording.model = shown_name(loaded.name)
    paired = encoded.decoder is not None
    made: list[str] = []
    if ids:
        axis, made = generated(loaded, ids, 1 if paired else encoded.axis.length)
        recording.tokens(axis, side="decoder" if paired else None)
    if not ids or paired:
        recording.tokens(encoded.axis, side="encoder" if paired else None)
    if encoded.decoder is not None and not ids:
        recording.tokens(encoded.decoder, side="decoder")
    complete(loaded, encoded)
    return recording, made


def loaded_model(name: str | None) -> Loaded:
    """A model and its tokenizer; what goes on meanwhile is shown."""
    from headscope.hf import models

    with busy(f"loading {name or models.PACKAGED_NAME}"), collecting_later():
        quiet()
        return models.load(name)


def complete(loaded: Loaded, encoded: Encoded) -> None:
    """Say on stderr what was left out of a text, and which weights are random."""
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
