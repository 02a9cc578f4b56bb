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


def test_no_mask_hides_nothing_where_a_model_was_written_for_eager():
    """The pictures of BridgeTower attend to each other in layers that are called causal, without a mask."""
    found = agree("bridgetower")
    assert found.outputs is not None
    assert found.outputs < 1e-5
    assert found.gradients is not None
    assert found.gradients < 1e-5


def test_booleans_of_four_axes_say_who_may_attend():
    """As on sdpa; Grounding DINO gives such a mask to BERT, and "eager" adds it to the scores as ones and zeros."""
    import transformers as hf

    config = hf.BertConfig(hidden_size=20, num_hidden_layers=1, num_attention_heads=5, intermediate_size=23)
    ids = torch.arange(11)[None]
    seen = (torch.rand(1, 1, 11, 11, generator=torch.Generator().manual_seed(1)) > 0.5) | torch.eye(
        11, dtype=torch.bool
    )
    outputs = []
    for how in ("sdpa", "headscope"):
        torch.manual_seed(0)
        outputs.append(hf.BertModel._from_config(config, attn_implementation=how).eval()(ids, seen).last_hidden_state)
    torch.testing.assert_close(*outputs, atol=1e-6, rtol=1e-5)


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


def test_masks_stay_runs_where_a_model_gives_them_to_its_attention_function(monkeypatch):
    """gpt-oss has no sdpa because of its sinks, and its own code never computes with a mask."""
    from transformers import GptOssConfig, GptOssModel, PegasusXConfig, PegasusXModel

    assert not GptOssModel._supports_sdpa
    assert not PegasusXModel._supports_sdpa
    assert compat.without_sdpa(GptOssConfig)
    assert not compat.adds_masks(GptOssConfig)
    assert compat.adds_masks(PegasusXConfig)
    for flag in compat.HANDS_ON:
        with monkeypatch.context() as patch:
            patch.delattr(f"transformers.PreTrainedModel.{flag}")
            assert compat.adds_masks(GptOssConfig)


@pytest.mark.parametrize("kind", ["gpt_oss", "gemma2", "t5gemma", "openai_privacy_filter"])
def test_models_with_flex_attention_and_no_sdpa_agree_with_eager(kind):
    found = agree(kind)
    assert found.note == ""
    assert max(found.outputs, found.gradients) < 2e-6


def test_a_window_of_a_model_without_sdpa_costs_no_dense_mask():
    from transformers import GptOssConfig

    from headscope.hf.lazy_mask import LazyMask
    from headscope.hf.mask_function import mask as make

    rule = compat.masks().causal
    found = make(1, 7, 7, mask_function=rule, allow_is_causal_skip=True, config=GptOssConfig())
    assert isinstance(found, LazyMask)  # and not None, which would hide nothing
    assert repr(found.mask) == "causal()"


def test_sinks_of_single_queries_are_refused():
    x = torch.randn(1, 2, 3, 4)
    with pytest.raises(BackendRefused, match="every query of this model has a sink of its own"):
        attention(torch.nn.Identity(), x, x, x, None, sinks=torch.randn(1, 2, 3, 1))
