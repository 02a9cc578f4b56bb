"""Models that add masks to their scores by themselves get numbers on "headscope", as on "eager"."""

import pytest
import torch

import headscope as hs
from headscope.compat import names
from headscope.compat import transformers as compat
from headscope.errors import BackendRefused
from headscope.hf.interface import attention
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


def test_sinks_of_single_queries_are_refused():
    x = torch.randn(1, 2, 3, 4)
    with pytest.raises(BackendRefused, match="every query of this model has a sink of its own"):
        attention(torch.nn.Identity(), x, x, x, None, sinks=torch.randn(1, 2, 3, 1))
