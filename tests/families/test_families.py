"""Every architecture of transformers: those that run are recorded, equal their eager weights, and run on "
""headscope"."""

import functools

import pytest

import headscope as hs
from tests.families import tiny
from tests.families.examine import CLOSE, Seen, examine

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@functools.cache
def seen() -> list[Seen]:
    """All architectures, examined once."""
    hs.hf.register()
    return [examine(kind) for kind in tiny.architectures()]


@pytest.mark.timeout(1500)
def test_nearly_all_that_run_are_recorded():
    ran = [one for one in seen() if one.status in ("recorded", "missed")]
    recorded = [one for one in ran if one.status == "recorded"]
    assert len(recorded) >= 120
    assert len(recorded) >= 0.95 * len(ran)


@pytest.mark.timeout(1500)
def test_outputs_are_the_same_bits():
    assert [one.kind for one in seen() if not one.same] == []


@pytest.mark.timeout(1500)
def test_eager_weights_are_those_recorded():
    assert [one for one in seen() if one.eager is not None and one.eager > CLOSE] == []


@pytest.mark.timeout(1500)
def test_headscope_gives_the_outputs_of_sdpa():
    assert [one for one in seen() if one.ours is not None and one.ours > 1e-3] == []
