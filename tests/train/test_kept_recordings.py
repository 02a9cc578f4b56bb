"""Recordings that are kept while a model trains, when the training goes on from an earlier step."""

import pytest
import torch

import headscope as hs
from headscope.train.kept_recordings import ENDS, Kept


@pytest.fixture
def recording():
    layer = torch.nn.TransformerEncoderLayer(6, 3, 7, batch_first=True)
    with hs.record(layer) as found:
        layer(torch.randn(1, 5, 6))
    return found


def test_a_training_that_goes_on_knows_what_was_kept_up_to_its_step_and_nothing_later(recording, tmp_path):
    first = Kept(2, tmp_path)
    first.begin(0)
    for step in range(6):
        first.add(step, recording)
    assert list(first.recordings()) == [0, 2, 4]
    again = Kept(2, tmp_path)
    again.begin(3)
    assert list(again.recordings()) == [0, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000.headscope", "step-000002.headscope"]
    later = Kept(ENDS, tmp_path)
    later.begin(2)
    assert (list(later.recordings()), later.looks) == ([0, 2], 2)


def test_every_third_look_is_the_same_one_in_a_training_that_was_stopped(tmp_path):
    """Looks before the stop count, also those of which nothing was kept."""
    layer, x = torch.nn.TransformerEncoderLayer(6, 3, 7, batch_first=True), {"src": torch.randn(1, 5, 6)}
    with hs.Watch(layer, x, every=1, to=tmp_path / "through", keep=3) as through:
        for _ in range(7):
            through.step()
    for steps, start in ((4, None), (3, 4)):
        with hs.Watch(layer, x, every=1, to=tmp_path / "stopped", keep=3, start=start) as stopped:
            for _ in range(steps):
                stopped.step()
    assert list(through.recordings) == list(stopped.recordings) == [0, 3, 6]
