"""Large layers are looked at at once: their digest is compared by a thread while their numbers are already in use.

A layer of 1.5 GB takes seconds to hash. Until that is done its numbers are unproven: whoever uses them asks `proven`
before keeping anything that was made from them, and `check` raises as soon as the file was found to be another one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from headscope.errors import RecordingError
from headscope.recording.folder.stored_layer import StoredLayer
from headscope.recording.layer import Layer

# Files that are hashed within a blink are verified before they are opened.
SMALL = 2**25


class Deferred:
    """Opens layers, and verifies them one after the other.

    Args:
        small: files of at most so many bytes are verified at once.
        between: called between two blocks of a file.
    """

    def __init__(self, small: int | None = None, between: Callable[[], None] = lambda: None) -> None:
        self.between = between
        self.small = SMALL if small is None else small
        self.waiting: list[StoredLayer] = []
        self.failed: dict[StoredLayer, RecordingError] = {}
        self.changed = threading.Condition()
        self.closed = False
        self.thread: threading.Thread | None = None

    def open(self, layer: Layer) -> None:
        """Map a layer's file; its digest is compared now if the file is small, or later.

        Raises:
            RecordingError: the file cannot be read, or is not the one that was written.
        """
        self.check(layer)
        if not isinstance(layer, StoredLayer) or layer.is_open:
            return
        if size_of(layer.file) <= self.small:
            layer.opened()
            return
        layer.open_unverified()
        with self.changed:
            self.waiting.append(layer)
            self.changed.notify()
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name="headscope-verify", daemon=True)
                self.thread.start()

    def proven(self, layer: Layer) -> bool:
        """Whether a layer's numbers are known to be those that were written."""
        return layer not in self.waiting and layer not in self.failed

    def check(self, layer: Layer) -> None:
        """Raise where a layer was found not to be the one that was written.

        Raises:
            RecordingError: its file was altered, damaged or replaced.
        """
        if isinstance(layer, StoredLayer) and layer in self.failed:
            raise RecordingError(str(self.failed[layer]))

    def close(self, wait: float = 0.5) -> None:
        """Stop between two blocks; wait at most so many seconds for it."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        if self.thread is not None:
            self.thread.join(wait)

    def _stopped(self) -> bool:
        self.between()
        return self.closed

    def _run(self) -> None:
        while True:
            with self.changed:
                while not self.closed and not self.waiting:
                    self.changed.wait()
                if self.closed:
                    return
                layer = self.waiting[0]
            try:
                if not layer.verify(self._stopped):
                    return
            except RecordingError as error:
                self.failed[layer] = error
            with self.changed:
                self.waiting.remove(layer)


def size_of(file: Path) -> int:
    """The bytes of a file; 0 where it cannot be asked, which opening it will say."""
    try:
        return file.stat().st_size
    except OSError:
        return 0
