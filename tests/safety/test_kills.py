"""A process that ends at any step of any writing leaves the old result or the new one, and the next run is clean."""

import pytest

from headscope.files import system
from tests.safety import kills
from tests.safety.cases import cases, checkpoints, recording, saved_over

NAMES = [
    "a new recording", "a recording that is replaced", "the same without renameat2", "a checkpoint", "a html file",
    "a csv file", "a parquet file", "the model of a training", "the folder of a watch", "a pass over a corpus",
]  # fmt: skip


@pytest.mark.parametrize("exchange", [True, False])
def test_a_sample_of_the_kills(exchange):
    assert kills.kill_everywhere(saved_over("sample", exchange=exchange), every=6) > 10


def test_a_sample_of_kills_of_a_checkpoint():
    assert kills.kill_everywhere(checkpoints(), every=5) > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_kills_at_every_step(name):
    (case,) = (one for one in cases() if one.name == name)
    assert kills.kill_everywhere(case) > 10


def test_every_case_is_killed():
    assert [case.name for case in cases()] == NAMES


def test_every_call_that_changes_a_disk_is_counted():
    """A function that is added to `system` and not to the list would never be killed."""
    reads = {"lock", "folder_held"}
    public = {name for name, thing in vars(system).items() if callable(thing) and thing.__module__ == system.__name__}
    assert {name for name in public if not name.startswith("_")} - reads == set(kills.CALLS)


def test_a_writer_without_an_atomic_step_is_found(tmp_path):
    """The guard can fail: a file that is written in its place is half there after a kill."""

    def action(here):
        handle = system.append_to(here / "a.txt")
        system.write(handle, b"new " * 9)

    def whole(here, done):
        assert (here / "a.txt").read_bytes() in (b"old", b"new " * 9)

    case = kills.Case("in place", lambda here: (here / "a.txt").write_bytes(b"old"), action, whole, {"a.txt"})
    with pytest.raises(AssertionError):
        kills.kill_everywhere(case)


def test_what_is_written_says_which_one_it_is():
    assert recording(2.0).model == "2.0"
