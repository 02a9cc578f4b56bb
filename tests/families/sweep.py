"""Many architectures, one after the other on every core."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

import headscope as hs
from tests.families.examine import Seen, examine


def sweep(kinds: list[str]) -> Iterator[tuple[float, Seen]]:
    """Examine architectures; yields the seconds and what was seen, in their order."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), prepare) as pool:
        yield from pool.map(timed, kinds)


def prepare() -> None:
    """A process that examines: quiet, and on one core, since there is one for each."""
    import transformers

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    hs.hf.register()


def timed(kind: str) -> tuple[float, Seen]:
    """One architecture, and the seconds that it took."""
    began = time.perf_counter()
    one = examine(kind)
    return time.perf_counter() - began, one
