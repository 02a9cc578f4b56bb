"""Making the levels of heads before anybody looks, in one process or in several that share the strips."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from starlette.exceptions import HTTPException

from headscope.errors import HeadscopeError, RecordingError
from headscope.server.bounds import HeadName
from headscope.server.library import Entry, Library, layer_of
from headscope.server.run import scratch_folder
from headscope.tiles.filling import PAUSE, fill_one


class Filled(NamedTuple):
    """A head whose levels are all there."""

    recording: str
    layer: int
    head: int
    item: int
    queries: int
    strips: int


def prefill(folders: Sequence[str | Path], heads: Sequence[tuple[int, int]] | None = None) -> Iterator[Filled]:
    """Make the levels of heads of recordings; gives each head as soon as its levels are there.

    Every process takes the next strip that nobody makes, of the first head that has one; none waits for another while
    there is anything to do.

    Args:
        heads: the model's numbers of layers and heads; all heads of all recordings unless given.

    Raises:
        RecordingError: a folder that is not a recording, or one that was damaged.
        HeadscopeError: no recording has one of the heads.
    """
    library = Library([Path(folder) for folder in folders], scratch_folder())
    try:
        missing = [Work(library, entry, name) for entry, name in chosen(library, heads)]
        while missing:
            for done in [work for work in missing if work.map.strips.complete]:
                missing.remove(done)
                yield done.filled()
            if missing and not any(work.step() for work in missing):
                time.sleep(PAUSE)
    finally:
        library.close()


class Work:
    """A head whose levels are made."""

    def __init__(self, library: Library, entry: Entry, name: HeadName) -> None:
        self.library, self.entry, self.name = library, entry, name
        try:
            self.map = library.find(name)[1]
        except HTTPException as error:
            raise RecordingError(error.detail) from None

    def step(self) -> bool:
        """Make one strip; false where the numbers are not proven yet, or others make all that is missing."""
        self.library.deferred.check(layer_of(self.entry, self.name))
        return self.map.proven() and fill_one(self.map.call, self.map.strips)

    def filled(self) -> Filled:
        """What was made."""
        return Filled(self.entry.name, *self.name[1:], self.map.shape.queries, self.map.shape.strips)


def chosen(library: Library, heads: Sequence[tuple[int, int]] | None) -> list[tuple[Entry, HeadName]]:
    """The heads of all recordings that have queries and keys, or those of some numbers."""
    found = [
        (entry, HeadName(entry.id, number, head, item))
        for entry in library.entries
        for number, layer in zip(entry.recording.numbers, entry.recording.layers, strict=True)
        for head in layer.head_numbers
        for item in range(layer.items)
        if layer.queries[item].length and layer.keys[item].length
    ]
    if heads is None:
        return found
    absent = next((pair for pair in heads if pair not in {name[1:3] for _, name in found}), None)
    if absent is not None:
        raise HeadscopeError(f"serve: no recording has head {absent[0]}.{absent[1]}; `headscope heads DIR` lists them.")
    return [(entry, name) for entry, name in found if name[1:3] in heads]
