"""Statistics of heads over many texts: one pass that can be stopped, resumed, and shared among processes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from headscope.cli.reading import quiet
from headscope.errors import HeadscopeError, LookError

if TYPE_CHECKING:
    from headscope.hf.models import Loaded
    from headscope.look.table import Table
    from headscope.look.totals import Totals

# Seconds between two writes of what is done.
EVERY = 5.0


def texts(path: Path) -> Iterator[str]:
    """The texts of a corpus, in order; empty lines of a .txt are none.

    Raises:
        HeadscopeError: a file that is not there, is no UTF-8 text, or a line that is no JSON with a "text".
    """
    if path.suffix not in (".jsonl", ".txt"):
        raise HeadscopeError(f'--corpus {path}: give a .jsonl file with "text" in each line, or a .txt file of lines.')
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if path.suffix == ".txt":
                    if line.strip():
                        yield line.strip()
                    continue
                yield text_of(path, number, line)
    except UnicodeDecodeError:
        raise HeadscopeError(f"--corpus {path}: this is no UTF-8 text. Convert it with iconv -t UTF-8.") from None


def text_of(path: Path, number: int, line: str) -> str:
    """The text of one line of JSON."""
    try:
        content = json.loads(line)
    except ValueError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("text"), str) or not content["text"].strip():
        raise HeadscopeError(f'--corpus {path}, line {number}: give a JSON object with a "text" that is not empty.')
    return str(content["text"])


class Progress:
    """What one process has done of a corpus, on disk: how many texts, and the sums over them."""

    def __init__(self, corpus: Path, model: str, rank: int, world: int) -> None:
        content = hashlib.sha256(corpus.read_bytes()).hexdigest()
        self.about = {"corpus": content, "model": model, "rank": rank, "world": world}
        part = "" if world == 1 else f".{rank}of{world}"
        self.path = corpus.with_name(f"{corpus.name}{part}.heads.json")
        self.written = time.monotonic()

    def resume(self) -> tuple[int, Totals]:
        """How many texts were done, and their sums; what was done with another corpus or model counts for nothing."""
        from headscope.look.totals import Totals

        try:
            content = json.loads(self.path.read_text())
            if content["about"] == self.about:
                return int(content["done"]), Totals.from_json(content["totals"])
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, LookError):
            raise HeadscopeError(f"{self.path}: this holds no progress. Remove it, and start again.") from None
        return 0, Totals()

    def keep(self, done: int, totals: Totals, *, now: bool = False) -> None:
        """Write what is done, whole or not at all, every few seconds."""
        if not now and time.monotonic() - self.written < EVERY:
            return
        content = {"about": self.about, "done": done, "totals": totals.to_json()}
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(content))
        os.replace(partial, self.path)
        self.written = time.monotonic()


def accumulate(path: Path, model: str | None) -> Table | None:
    """The table of heads over a corpus; None in all processes of a torchrun but the first."""
    from headscope.cli.status import busy
    from headscope.hf import models
    from headscope.look.progress import progress

    if not path.is_file():
        raise HeadscopeError(f"--corpus {path}: there is no such file. Give a .jsonl or .txt file.")
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    count = sum(1 for _ in texts(path))
    if not count:
        raise HeadscopeError(f"--corpus {path}: there is no text in it. Give at least one line.")
    quiet()
    with busy(f"loading {model or models.PACKAGED_NAME}"):
        loaded = models.load(model)
    kept = Progress(path, loaded.name, rank, world)
    done, totals = kept.resume()
    mine = (text for number, text in enumerate(texts(path)) if number % world == rank)
    try:
        with progress("reading", count // world) as advance:
            for number, text in enumerate(mine):
                if number >= done:
                    totals.merge(totals_of_text(loaded, text))
                    done = number + 1
                    kept.keep(done, totals)
                advance(1)
    except BaseException:
        kept.keep(done, totals, now=True)
        raise
    whole = totals if world == 1 else gathered(totals, rank, world)
    kept.path.unlink(missing_ok=True)
    return whole.table() if rank == 0 else None


def totals_of_text(loaded: Loaded, text: str) -> Totals:
    """The sums of every head over one text."""
    import headscope as hs
    from headscope.hf.text import encode, run
    from headscope.recording.head_table import totals_of

    encoded = encode(loaded, text)
    with hs.record(loaded.model, values=False) as recording:
        run(loaded, encoded)
    recording.tokens(encoded.axis, side=None if encoded.decoder is None else "encoder")
    if encoded.decoder is not None:
        recording.tokens(encoded.decoder, side="decoder")
    return totals_of(zip(recording.numbers, recording.layers, strict=True))


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
