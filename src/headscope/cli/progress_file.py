"""What one process has done of a corpus, on disk: how many texts, and the sums over them; and whose it is."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headscope.cli.status import warn
from headscope.errors import HeadscopeError, LookError
from headscope.files import system
from headscope.files.bounded import read_bounded
from headscope.files.digests import differences, digest_of_file
from headscope.files.replace_file import write

if TYPE_CHECKING:
    from headscope.look.totals import Totals

# Seconds between two writes of what is done, and the most bytes that they are read up to.
EVERY, LARGEST = 5.0, 2**26
FORMAT = 1
# The longest name that every file system takes, in bytes.
LONGEST_NAME = 255


class Progress:
    """The progress of one process.

    Attributes:
        about: what it belongs to, by content: corpus, weights, tokenizer, options.
        path: where it is; None where nothing can be kept.
        cut: how many texts were longer than the model takes.
    """

    def __init__(self, corpus: Path, identity: Mapping[str, Any], rank: int, world: int) -> None:
        self.about = {"format": FORMAT, "corpus": digest_of_file(corpus), **identity, "rank": rank, "world": world}
        self.path = place_of(corpus, "" if world == 1 else f".{rank}of{world}")
        self.written = time.monotonic()
        self.cut = 0

    def resume(self) -> tuple[int, Totals]:
        """How many texts were done, and their sums.

        Raises:
            HeadscopeError: the file holds no progress, or that of another corpus, model or option.
        """
        from headscope.look.totals import Totals

        if self.path is None or not os.path.lexists(self.path):
            return 0, Totals()
        try:
            content = json.loads(read_bounded(self.path, LARGEST, HeadscopeError))
            about, done, totals = content["about"], int(content["done"]), Totals.from_json(content["totals"])
            self.cut = int(content["cut"])
            other = differences(about, self.about)
        except (ValueError, KeyError, TypeError, AttributeError, LookError, RecursionError):
            raise HeadscopeError(f"{self.path}: this holds no progress. Remove it, and start again.") from None
        if other:
            raise HeadscopeError(
                f"{self.path}: this is the progress of a run with another {' and another '.join(other)}. Go on with "
                "the same as then, or remove the file to start again."
            )
        return done, totals

    def keep(self, done: int, totals: Totals, *, now: bool = False) -> None:
        """Write what is done, whole or not at all, every few seconds."""
        if self.path is None or (not now and time.monotonic() - self.written < EVERY):
            return
        content = {"about": self.about, "done": done, "cut": self.cut, "totals": totals.to_json()}
        write("heads", self.path, json.dumps(content).encode())
        self.written = time.monotonic()

    def remove(self) -> None:
        """The work is done."""
        if self.path is not None:
            with suppress(OSError):
                system.remove(self.path)


def place_of(corpus: Path, part: str) -> Path | None:
    """Beside the corpus, or where that cannot be written in the user's cache; None where neither can be."""
    name = f"{corpus.name}{part}.heads.json"
    if os.access(corpus.absolute().parent, os.W_OK | os.X_OK) and len(os.fsencode(name)) <= LONGEST_NAME:
        return corpus.with_name(name)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headscope"
    try:
        system.make_folders(cache)
        if not os.access(cache, os.W_OK | os.X_OK):
            raise PermissionError
    except OSError:
        warn(f"neither the folder of {corpus} nor {cache} can be written: if this run is stopped, it begins again.")
        return None
    which = hashlib.sha256(os.fsencode(corpus.resolve())).hexdigest()[:16]
    return cache / f"{which}{part}.heads.json"
