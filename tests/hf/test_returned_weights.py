"""`output_attentions=True`: the exact weights, as on eager; the values stay what they are without."""

import pytest
import torch
from torch.utils._pytree import tree_leaves

import headscope as hs
from headscope.compat import transformers as compat
from headscope.hf.interface import attention
from tests.families.agree import built
from tests.hf.nine import KINDS, batch, model_of
from tests.recording.tiny import eager_weights

hs.hf.register()


def rows(weights, inputs):
    """The rows of queries that are no padding."""
    seen = inputs.get("attention_mask")
    return weights.transpose(1, 2)[seen.bool()] if seen is not None and seen.shape[1] == weights.shape[2] else weights


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_weights_of_eager(kind, side):
    inputs, found = batch(kind, side), {}
    for how in ("eager", "headscope"):
        model = model_of(kind, how)
        found[how] = model(**inputs, output_attentions=True)
        if how == "headscope":
            plain = model(**inputs)
    want, mine = map(eager_weights, found.values())
    assert len(want) == len(mine) > 0
    for theirs, ours in zip(want, mine, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        torch.testing.assert_close(rows(ours, inputs), rows(theirs, inputs), atol=1e-6, rtol=1e-5)
    assert torch.equal(plain.logits, found["headscope"].logits)


@pytest.mark.parametrize(("kind", "name"), [("bridgetower", "attentions"), ("kosmos-2", "projection_attentions")])
def test_models_that_return_them_unasked(kind, name):
    """They read what a layer returns, and tell it nothing."""
    pair, inputs = built(kind, base=True)
    with torch.no_grad():
        want, found = (tree_leaves(model(**inputs)[name]) for model in pair)
    assert len(want) == len(found) > 0
    for theirs, ours in zip(want, found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_they_have_gradients_and_the_dtype_of_the_model():
    gradients = []
    for how in ("eager", "headscope"):
        model = model_of("llama", how)
        output = model(**batch("llama", "right"), output_attentions=True)
        sum(x[0].square().sum() for x in output.attentions).backward()
        gradients.append(model.model.layers[0].self_attn.q_proj.weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-4)
    half = model_of("llama", "headscope").bfloat16()
    assert half(**batch("llama"), output_attentions=True).attentions[0].dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert model(**batch("llama"), output_attentions=True).attentions[0].dtype == torch.bfloat16


def test_weights_of_every_step_of_a_generation():
    found = {}
    for how in ("eager", "headscope"):
        model = model_of("gpt_oss", how)
        model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
        more = {"max_new_tokens": 3, "output_attentions": True, "return_dict_in_generate": True, "do_sample": False}
        found[how] = model.generate(**batch("gpt_oss"), **more)
    for theirs, ours in zip(found["eager"].attentions, found["headscope"].attentions, strict=True):
        for want, mine in zip(theirs, ours, strict=True):
            torch.testing.assert_close(mine, want, atol=1e-6, rtol=1e-5)


def test_keys_without_a_use_have_no_weight():
    torch.manual_seed(0)
    q, k = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 11, 7)
    weights = attention(torch.nn.Module(), q, k, k, None, output_attentions=True)[1]
    assert weights.shape == (2, 3, 5, 11)
    assert not weights[..., 5:].any()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5))
    assert attention(torch.nn.Module(), q, k, k, None)[1] is None


def test_a_recording_is_the_same_beside_them():
    model, inputs = model_of("gpt_oss", "headscope"), batch("gpt_oss", "right")
    with torch.no_grad(), hs.record(model) as recording:
        output = model(**inputs, output_attentions=True)
    for number, weights in enumerate(output.attentions):
        for head in range(weights.shape[1]):
            torch.testing.assert_close(recording[number, head].weights(), weights[0, head], atol=1e-6, rtol=1e-5)


def test_another_version_without_the_collector(monkeypatch):
    monkeypatch.delattr("transformers.utils.output_capturing._active_collector")
    assert not compat.captures_weights()
