"""Statistics of heads over many texts: one pass that can be stopped, resumed, and shared among processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from headscope.characters import counted
from headscope.cli.loading import quiet
from headscope.cli.progress_file import Progress
from headscope.cli.status import warn
from headscope.errors import HeadscopeError
from headscope.files.encodings import lines
from headscope.files.places import path_of
from headscope.files.rows import SUFFIXES, rows

if TYPE_CHECKING:
    from headscope.hf.models import Loaded
    from headscope.look.table import Table
    from headscope.look.totals import Totals


def texts(path: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """The texts of a corpus with their lines, in order; empty lines are none.

    Raises:
        HeadscopeError: a file that is not there, in another encoding, or a row that has no "text".
    """

    def fail(problem: str) -> HeadscopeError:
        return HeadscopeError(f"--corpus {path}{problem}")

    if path.suffix.lower() == ".txt":
        yield from ((number, line.strip()) for number, line in lines(path, encoding, fail) if line.strip())
        return
    if path.suffix.lower() not in SUFFIXES:
        raise fail(f': give a .txt file of lines, or a {", ".join(SUFFIXES)} file with a "text" in each row.')
    for number, row in rows(path, encoding, fail):
        text = row.get("text")
        if not isinstance(text, str) or not text.strip():
            raise fail(f', line {number}: give a row or JSON object with a "text" that is not empty.')
        yield number, text


def accumulate(path: Path, model: str | None, encoding: str | None = None) -> Table | None:
    """The table of heads over a corpus; None in all processes of a torchrun but the first."""
    from headscope.cli.status import busy
    from headscope.hf import models
    from headscope.hf.identity import identity_of
    from headscope.look.progress import progress

    if not path_of("--corpus", str(path)).is_file():
        raise HeadscopeError(f"--corpus {path}: there is no such file. Give a .txt, {', '.join(SUFFIXES)} file.")
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    count = sum(1 for _ in texts(path, encoding))
    if not count:
        raise HeadscopeError(f"--corpus {path}: there is no text in it. Give at least one line.")
    quiet()
    with busy(f"loading {model or models.PACKAGED_NAME}"):
        loaded = models.load(model)
    kept = Progress(path, {**identity_of(loaded), "encoding": encoding}, rank, world)
    done, totals = kept.resume()
    mine = (one for number, one in enumerate(texts(path, encoding)) if number % world == rank)
    try:
        with progress("reading", count // world) as advance:
            for number, (line, text) in enumerate(mine):
                if number >= done:
                    try:
                        found, cut = totals_of_text(loaded, text)
                    except HeadscopeError as error:
                        raise HeadscopeError(f"--corpus {path}, line {line}: {error}") from error
                    totals.merge(found)
                    kept.cut += cut
                    done = number + 1
                    kept.keep(done, totals)
                advance(1)
    except BaseException:
        # What stopped the work matters more than that its progress cannot be kept.
        with suppress(HeadscopeError):
            if done:
                kept.keep(done, totals, now=True)
        raise
    if kept.cut:
        longer = f"{counted(kept.cut, 'text')} longer than the {loaded.limit} tokens of {loaded.name}"
        warn(f"cut at the end: {longer}.")
    whole = totals if world == 1 else gathered(totals, rank, world)
    kept.remove()
    return whole.table() if rank == 0 else None


def totals_of_text(loaded: Loaded, text: str) -> tuple[Totals, bool]:
    """The sums of every head over one text, and whether it was cut because the model takes no more."""
    import headscope as hs
    from headscope.hf.text import encode, run
    from headscope.recording.head_table import totals_of

    encoded = encode(loaded, text)
    with hs.record(loaded.model, values=False) as recording:
        run(loaded, encoded)
    recording.tokens(encoded.axis, side=None if encoded.decoder is None else "encoder")
    if encoded.decoder is not None:
        recording.tokens(encoded.decoder, side="decoder")
    return totals_of(zip(recording.numbers, recording.layers, strict=True)), encoded.cut > 0


def gathered(totals: Totals, rank: int, world: int) -> Totals:
    """The sums of all processes, in the order of their ranks."""
    import torch.distributed as dist

    from headscope.look.totals import Totals

    dist.init_process_group("gloo")
    try:
        parts: list[str] = [""] * world
        dist.all_gather_object(parts, totals.to_json())
    finally:
        dist.destroy_process_group()
    whole = Totals()
    for part in parts:
        whole.merge(Totals.from_json(part))
    return whole
