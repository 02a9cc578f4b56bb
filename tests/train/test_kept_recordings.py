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
    later = Kept(ENDS, tmp_path)
    later.begin(2)
    assert (list(later.recordings()), later.looks) == ([0, 2], 2)
