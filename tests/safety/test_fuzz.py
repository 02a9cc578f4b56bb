"""Damaged and hostile recordings: an error that names the file, or the right values, in little memory and time."""

import os
import random
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headscope as hs
from headscope.errors import RecordingError
from tests.recording.test_store import example, lie, lie_in_a_header, lie_somewhere, looked_at, mutate, same

MEMORY, SECONDS = 256 * 2**20, 5.0
CHECKS = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)


def attack(seed: int) -> None:
    """One mutation, by its seed: bytes anywhere, or lies under digests that were made anew."""
    choose = random.Random(seed)
    whole = example()
    with tempfile.TemporaryDirectory() as folder:
        path = whole.save(Path(folder) / "one")
        way = choose.random()
        if way < 0.5:
            mutate(choose, path)
        elif way < 0.85:
            lie(path, lambda body: lie_somewhere(choose, body))
        else:
            lie_in_a_header(choose, path)
        refused = ""
        try:
            if way < 0.5:
                assert same(hs.load(path), whole)
            else:
                looked_at(path)
        except RecordingError as error:
            refused = str(error)
        assert not refused or str(path) in refused, refused


def in_bounds(seed: int) -> None:
    """An attack in a process of its own, whose memory and time are measured."""
    # A child begins with what its parent has now; what that had once would hide what the child takes.
    before = psutil.Process().memory_info().rss
    reader, writer = os.pipe()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # The threads of the parent are not in the child: work that is shared out to them would wait for ever.
            torch.set_num_threads(1)
            attack(seed)
            code = 0
        except BaseException as error:  # noqa: BLE001
            os.write(writer, repr(error).encode(errors="replace")[:4000])
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    _, status, used = os.wait4(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, (seed, said)
    assert time.monotonic() - begun < SECONDS, seed
    assert used.ru_maxrss * 1024 - before < MEMORY, (seed, used.ru_maxrss * 1024 - before)


@settings(max_examples=40, suppress_health_check=CHECKS)
@given(st.integers(0, 2**32))
def test_a_sample_of_mutations(seed):
    in_bounds(seed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=2000, suppress_health_check=CHECKS)
@given(st.integers(0, 2**32))
def test_two_thousand_mutations(seed):
    in_bounds(seed)
