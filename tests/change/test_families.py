"""Heads of the Hugging Face families are switched off alike, whichever kernel the model runs."""

import pytest
import torch

import headscope as hs
from tests.recording.tiny import build

KINDS = ("bert", "gpt2", "t5", "vit", "whisper", "llama")


def output(model, inputs) -> torch.Tensor:
    """The last hidden state, or what the model has in its place."""
    with torch.no_grad():
        found = model(**inputs)
    return found.last_hidden_state if "last_hidden_state" in found else found[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["zero", "mean"])
def test_eager_and_sdpa_agree(kind, how):
    found = []
    for implementation in ("eager", "sdpa"):
        model, inputs = build(kind, implementation)
        before = output(model, inputs)
        with hs.record(model) as recording:
            output(model, inputs)
        heads = [(layer.number, layer.heads - 1) for layer in recording.layers]
        with hs.ablate(model, heads, how):
            found.append(output(model, inputs))
        assert not torch.allclose(found[-1], before, atol=1e-6)
        assert torch.equal(output(model, inputs), before)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_patch_with_the_own_recording_changes_nothing(kind):
    model, inputs = build(kind)
    before = output(model, inputs)
    with hs.record(model) as recording:
        output(model, inputs)
    heads = [(layer.number, head) for layer in recording.layers for head in range(layer.heads)]
    for what in ("output", "weights"):
        with hs.patch(model, recording, heads, what):
            torch.testing.assert_close(output(model, inputs), before, rtol=1e-4, atol=1e-5)
