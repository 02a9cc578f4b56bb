"""Listening at the attention interface of transformers: eager attention, and what SDPA was given before repetition."""

import pytest
import torch
from torch import nn

import headscope as hs
from tests.recording.tiny import KINDS, build, eager_weights


@pytest.mark.parametrize("kind", KINDS)
def test_eager_models_are_recorded_and_stay_as_they_are(kind):
    model, inputs = build(kind, "eager")
    with torch.no_grad():
        before = model(**inputs, output_attentions=True)
        with hs.record(model) as recording:
            during = model(**inputs, output_attentions=True)
    for a, b in zip(before.values(), during.values(), strict=True):
        assert not isinstance(a, torch.Tensor) or torch.equal(a, b)
    weights = eager_weights(before)
    assert len(weights) == len(recording.layers)
    assert {layer.source for layer in recording.layers} == {"call"}
    for want in weights:
        gaps = []
        for layer in recording.layers:
            mine = torch.stack([layer.head(head).weights() for head in range(layer.heads)])
            gaps.append(float((mine - want[0]).abs().max()) if mine.shape == want[0].shape else 1.0)
        assert min(gaps) < 1e-5


def test_the_interface_is_itself_again():
    from transformers.modeling_utils import AttentionInterface

    model, inputs = build("bert", "eager")
    before = AttentionInterface.get_interface
    with hs.record(model):
        assert AttentionInterface.get_interface is not before
        model(**inputs)
    assert AttentionInterface.get_interface is before


@pytest.mark.parametrize("how", ["sdpa", "eager"])
def test_groups_are_not_repeated(how):
    model, inputs = build("llama", how)
    with torch.no_grad(), hs.record(model) as recording:
        model(**inputs)
    assert {layer.k.shape[1] for layer in recording.layers} == {3}
    assert {layer.q.shape[1] for layer in recording.layers} == {6}


def through(kernel, **given):
    """A recording of one call through the interface with a kernel of the test."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    class Model(nn.Module):
        def forward(self, q, k, v):
            how = ALL_ATTENTION_FUNCTIONS.get_interface("eager", kernel)
            return how(self, q, k, v, None, **given)[0]

    model = Model()
    torch.manual_seed(2)
    q, k, v = torch.randn(2, 3, 5, 11), torch.randn(2, 3, 7, 11), torch.randn(2, 3, 7, 13)
    with hs.record(model) as recording:
        model(q, k, v)
    return recording, (q, k, v)


def test_weights_that_the_arguments_do_not_explain_are_recorded_themselves():
    def sharpened(module, q, k, v, mask, **_):
        weights = (3 * q @ k.mT).softmax(-1)
        weights = torch.where(weights < 0.01, 0.0, weights)
        return weights @ v, weights

    recording, (q, k, v) = through(sharpened)
    layer = recording.layers[0]
    assert layer.source == "weights"
    want = sharpened(None, q, k, v, None)[1]
    for item in range(2):
        for head in range(3):
            torch.testing.assert_close(layer.head(head, item).weights(), want[item, head])


def test_softcap_and_sinks():
    sinks = torch.tensor([0.5, -1.0, 2.0])

    def capped(module, q, k, v, mask, scaling, softcap, s_aux, **_):
        s = softcap * torch.tanh(q @ k.mT * scaling / softcap)
        s = torch.cat([s, s_aux[None, :, None, None].expand(2, 3, 5, 1)], -1)
        weights = s.softmax(-1)[..., :-1]
        return weights @ v, weights

    recording, (q, k, v) = through(capped, scaling=0.4, softcap=2.0, s_aux=sinks)
    layer = recording.layers[0]
    assert (layer.source, layer.softcap, layer.scale) == ("call", 2.0, 0.4)
    want = capped(None, q, k, v, None, 0.4, 2.0, sinks)[1]
    torch.testing.assert_close(layer.head(1, 1).weights(), want[1, 1])


@pytest.mark.parametrize("bias", [None, torch.randn(1, 3, 5, 7, generator=torch.Generator().manual_seed(3))])
def test_every_query_has_a_sink_of_its_own(bias):
    """As in Inkling: one more score for each query, without a key."""
    sinks = torch.randn(2, 3, 5, 1, generator=torch.Generator().manual_seed(4))

    def sunk(module, q, k, v, mask, scaling, sinks, position_bias=None, **_):
        s = q @ k.mT * scaling if position_bias is None else q @ k.mT * scaling + position_bias
        weights = torch.cat([s, sinks], -1).softmax(-1)[..., :-1]
        return weights @ v, weights

    given = {"scaling": 0.4, "sinks": sinks} | ({} if bias is None else {"position_bias": bias})
    recording, (q, k, v) = through(sunk, **given)
    layer = recording.layers[0]
    assert layer.source == "call"
    want = sunk(None, q, k, v, None, **given)[1]
    for item in range(2):
        torch.testing.assert_close(layer.head(2, item).weights(), want[item, 2])
        torch.testing.assert_close(layer.head(2, item).values(), want[item, 2] @ v[item, 2])


def test_a_sink_that_the_arguments_do_not_name_keeps_its_share():
    def sunk(module, q, k, v, mask, scaling, **_):
        weights = torch.cat([q @ k.mT * scaling, torch.full((2, 3, 5, 1), 1.5)], -1).softmax(-1)[..., :-1]
        return weights @ v, weights

    recording, (q, k, v) = through(sunk, scaling=0.4)
    layer = recording.layers[0]
    assert layer.source == "weights"
    want = sunk(None, q, k, v, None, 0.4)[1]
    torch.testing.assert_close(layer.head(1, 1).weights(), want[1, 1])
    torch.testing.assert_close(layer.head(1, 1).values(), want[1, 1] @ v[1, 1])


def test_dropout_does_not_make_the_arguments_look_wrong():
    def dropped(module, q, k, v, mask, dropout, **_):
        weights = torch.nn.functional.dropout((q @ k.mT * 11**-0.5).softmax(-1), dropout)
        return weights @ v, weights

    assert through(dropped, dropout=0.3)[0].layers[0].source == "call"
