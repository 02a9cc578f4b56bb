"""Damaged and hostile recordings: an error that names the file, or the right values, in little memory and time."""

import os
import random
import resource
import tempfile
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


def in_bounds(seed: int) -> tuple[float, int]:
    """An attack in a process of its own; the seconds of processor and the bytes of memory that it took."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # The threads of the parent are not in the child: work that is shared out to them would wait for ever.
            torch.set_num_threads(1)
            before = psutil.Process().memory_info().rss
            attack(seed)
            os.write(writer, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before).encode())
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
    # A clock would count what other programs do meanwhile.
    seconds, taken = used.ru_utime + used.ru_stime, int(said)
    assert seconds < SECONDS, seed
    assert taken < MEMORY, (seed, taken)
    return seconds, taken


def test_the_memory_of_a_child_is_its_own(monkeypatch):
    """The guard can fail: what a child takes for a moment is seen, whatever its parent has."""
    monkeypatch.setattr(f"{__name__}.attack", lambda seed: len(bytearray(os.urandom(2**20)) * 300))
    with pytest.raises(AssertionError, match=r"7, \d{9}"):
        in_bounds(7)


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
