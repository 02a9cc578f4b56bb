"""The recordings that a server has, the identifiers of their heads, and the maps of those that were opened."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Lock

from headscope.errors import HeadscopeError, RecordingError
from headscope.files.digests import digest_of_file
from headscope.files.places import with_suffix
from headscope.recording.folder.deferred import Deferred
from headscope.recording.folder.format import NAME
from headscope.recording.folder.reader import SUFFIX, parts_in
from headscope.recording.recording import Layer, Recording, among, load
from headscope.server.bounds import HeadName, refused
from headscope.tiles.background import Filler
from headscope.tiles.head_map import HeadMap

# Maps that stay open: each keeps a few numbers for every query.
MOST_MAPS = 32
# Seconds that a block of background work, of a few milliseconds, waits for requests that are being answered.
PATIENCE = 0.05
DIGITS = 12


class Entry:
    """One recording that is served: its identifier, and whether it is still what lies in its folder."""

    def __init__(self, recording: Recording, path: Path | None, name: str) -> None:
        self.recording, self.path, self.name = recording, path, name
        self.files = [] if path is None else files_of(path)
        self.stamp = stamp(self.files)
        if path is None:
            self.id = secrets.token_hex(DIGITS // 2)
        else:
            together = "".join(map(digest_of_file, self.files))
            self.id = hashlib.sha256(together.encode()).hexdigest()[:DIGITS]

    @property
    def is_current(self) -> bool:
        """Whether the folder still holds this recording."""
        return self.path is None or stamp(self.files) == self.stamp


class Library:
    """All recordings of a server.

    Args:
        sources: folders of recordings, or recordings in memory.
        scratch: where the maps of recordings in memory are kept.
    """

    def __init__(self, sources: Sequence[Path | Recording], scratch: Path) -> None:
        self.idle = Event()
        self.idle.set()
        self.filler, self.deferred = Filler(self.give_way), Deferred(between=self.give_way)
        self.scratch, self.lock = scratch, Lock()
        self.maps: OrderedDict[str, HeadMap] = OrderedDict()
        self.gone: dict[str, str] = {}
        self.entries: list[Entry] = []
        try:
            for source in sources:
                path = source if isinstance(source, Path) else None
                recording = source if isinstance(source, Recording) else load(source)
                name = recording.model or "recording" if path is None else place(path).name
                self.entries.append(Entry(recording, None if path is None else place(path), name))
        except BaseException:
            self.close()
            raise

    def give_way(self) -> None:
        """Wait while a request is answered, but not for ever: background work calls it between its blocks."""
        self.idle.wait(PATIENCE)

    def close(self) -> None:
        """Stop filling maps and verifying layers."""
        self.filler.close()
        self.deferred.close()

    def refresh(self) -> list[Entry]:
        """All recordings as they are now; one that was replaced is opened again, under a new identifier."""
        with self.lock:
            for position, entry in enumerate(self.entries):
                if not entry.is_current:
                    self._reopen(position, entry)
            return list(self.entries)

    def _reopen(self, position: int, entry: Entry) -> None:
        assert entry.path is not None
        for key in [key for key in self.maps if key.startswith(entry.id)]:
            self.filler.forget(self.maps.pop(key))
        try:
            new = Entry(load(entry.path), entry.path, entry.name)
        except (HeadscopeError, OSError):
            return  # being written at this moment, or gone: the next request looks again
        if new.id != entry.id:
            self.gone[entry.id] = new.id
        self.entries[position] = new

    def find(self, name: HeadName) -> tuple[Entry, HeadMap]:
        """The map of a head."""
        entry = next((one for one in self.refresh() if one.id == name.recording), None)
        if entry is None or not entry.is_current:
            if entry is not None or name.recording in self.gone:
                raise refused("the recording was replaced by another one; ask for /api/v1/recordings again.", 410)
            raise refused(f"there is no recording {name.recording}; /api/v1/recordings lists those that are.", 404)
        key = "-".join(map(str, name))
        with self.lock:
            if key in self.maps:
                self._proven(key, name, entry)
            else:
                self.maps[key] = self._open(entry, name)
                while len(self.maps) > MOST_MAPS:
                    self.filler.forget(self.maps.popitem(last=False)[1])
            self.maps.move_to_end(key)
            return entry, self.maps[key]

    def _proven(self, key: str, name: HeadName, entry: Entry) -> None:
        """Forget a map whose numbers turned out to be others than those that were written."""
        try:
            self.deferred.check(layer_of(entry, name))
        except RecordingError as error:
            self.filler.forget(self.maps.pop(key))
            raise refused(f"{error}", 410) from error

    def _open(self, entry: Entry, name: HeadName) -> HeadMap:
        try:
            layer = layer_of(entry, name)
            self.deferred.open(layer)
            head = entry.recording[name.layer, name.head, name.item]
            if not len(head.q) or not len(head.k):
                raise refused("the head has no queries or no keys.", 404)
            return HeadMap(head, self.folder(entry, name), lambda: self.deferred.proven(layer))
        except RecordingError as error:
            raise refused(f"{error}", 410) from error
        except HeadscopeError as error:
            raise refused(f"{error}", 404) from error

    def folder(self, entry: Entry, name: HeadName) -> Path:
        """Where the levels of a head are kept: beside its recording, by what it holds."""
        last = f"{name.layer}-{name.head}-{name.item}"
        if entry.path is None:
            return self.scratch / entry.id / last
        folder = entry.path.with_name(entry.path.name + ".tiles") / entry.id / last
        there = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
        return folder if os.path.isdir(there) and os.access(there, os.W_OK) else self.scratch / entry.id / last


def layer_of(entry: Entry, name: HeadName) -> Layer:
    """The layer of a head.

    Raises:
        LookError: there is no such layer.
    """
    recording = entry.recording
    return recording.layers[among(f"recording: layer {name.layer}", name.layer, recording.numbers)]


def place(path: Path) -> Path:
    """The folder that a path means, with its suffix."""
    return path.resolve() if path.is_dir() else with_suffix(path, SUFFIX).resolve()


def files_of(path: Path) -> list[Path]:
    """The `recording.json` of a recording, or of each of its parts."""
    if not (path / NAME).exists() and not parts_in(path):
        path = with_suffix(path, SUFFIX)
    return [part / NAME for part in parts_in(path)] or [path / NAME]


def stamp(files: Sequence[Path]) -> list[tuple[int, int, int, int] | None]:
    """Which files these are at this moment, without reading them."""
    found: list[tuple[int, int, int, int] | None] = []
    for file in files:
        try:
            about = os.stat(file)
            found.append((about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns))
        except OSError:
            found.append(None)
    return found
