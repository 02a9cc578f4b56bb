"""Models that add masks to their scores by themselves get numbers on "headscope", as on "eager"."""

import pytest
import torch

import headscope as hs
from headscope.compat import names
from headscope.compat import transformers as compat
from tests.families.agree import agree

hs.hf.register()


@pytest.mark.parametrize("kind", ["bloom", "mpt", "canine"])
def test_outputs_are_those_of_eager(kind):
    found = agree(kind)
    assert (found.outputs, found.gradients, found.note) == (0.0, 0.0, "")


def test_models_with_sdpa_are_known(monkeypatch):
    from transformers import BertConfig, BertModel, BloomConfig, BloomModel

    assert BertModel._supports_sdpa
    assert not BloomModel._supports_sdpa
    assert compat.adds_masks(BloomConfig)
    assert not compat.adds_masks(BertConfig)
    assert not compat.adds_masks(torch.nn.Linear)
    monkeypatch.setattr(names, "_warned", set())
    monkeypatch.delattr("transformers.PreTrainedModel._supports_sdpa")
    with pytest.warns(UserWarning, match="has no transformers.PreTrainedModel._supports_sdpa, with which"):
        assert not compat.adds_masks(BloomConfig)
