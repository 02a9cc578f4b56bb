"""A worked example: every number of it is the model's own, taken from the model in another way."""

import math
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel

from headscope.errors import LookError, ModelError
from headscope.hf import models
from headscope.hf.text import encode
from headscope.lesson.chapters import chapters
from headscope.lesson.linear_maps import LinearCall, output_map, slice_of
from headscope.lesson.shapes_table import shapes_table
from headscope.lesson.worked_example import position, work_out
from tests.hf import tiny

TEXT = "The animal didn't cross the street because it was too tired."
# Where a family's q, k, v and W_O are, by the names of its modules in layer 1; T5's is the decoder's self-attention.
MAPS = {
    "bert": ("encoder.layer.1.attention", "self.query", "self.key", "self.value", "output.dense"),
    "gpt2": ("h.1.attn", "c_attn", "c_attn", "c_attn", "c_proj"),
    "llama": ("layers.1.self_attn", "q_proj", "k_proj", "v_proj", "o_proj"),
    "t5": ("encoder.block.1.layer.0.SelfAttention", "q", "k", "v", "o"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {family: str(tiny.save(family, folder / family)) for family in MAPS}


def worked(folder, **options):
    loaded = models.load(folder)
    return loaded, work_out(loaded, encode(loaded, TEXT), TEXT, **options)


@pytest.mark.parametrize("family", MAPS)
def test_every_number_is_the_models_own(folders, family):
    loaded, example = worked(folders[family], layer=1, head=2)
    where, *paths = MAPS[family]
    assert [example.source[letter].call.path for letter in "qkv"] == [f"{where}.{path}" for path in paths[:3]]
    assert [source.packed for source in example.source.values()] == [family == "gpt2"] * 3
    assert [source.exact for source in example.source.values()] == [family != "llama", family != "llama", True]
    assert example.output.path == f"{where}.{paths[3]}"

    # The weights of the eager model, which writes them out.
    eager = AutoModel.from_pretrained(folders[family], attn_implementation="eager").eval()
    seen = {}
    modules = dict(eager.named_modules())
    for name, path in zip(("x", "k", "v", "out"), paths, strict=True):
        keep = lambda _, args, y, name=name: seen.update({name: (args[0][0], y[0])})
        modules[f"{where}.{path}"].register_forward_hook(keep)
    with torch.no_grad():
        found = eager(**encode(loaded, TEXT).inputs, output_attentions=True)
    attentions = found.encoder_attentions if family == "t5" else found.attentions
    i = example.query
    torch.testing.assert_close(example.weights, attentions[1][0, 2, i], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(example.x, seen["x"][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(example.merged, seen["out"][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(example.output.y, seen["out"][1], rtol=1e-5, atol=1e-6)
    assert example.difference < 1e-6
    e = example.values.numel()
    torch.testing.assert_close(example.values, seen["out"][0][i, 2 * e : 3 * e], rtol=1e-5, atol=1e-6)

    # The formula by hand, in float64.
    scores = example.products.double() * example.lens.scale
    if example.lens.bias is None:
        hidden = torch.isinf(example.scores)
        assert hidden.any() == (family in ("gpt2", "llama"))
        torch.testing.assert_close(example.scores.double()[~hidden], scores[~hidden], rtol=1e-5, atol=1e-6)
    raised = (example.scores.double() - example.scores.double().max()).exp()
    torch.testing.assert_close(example.exponentials.double(), raised, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(example.weights.double(), raised / raised.sum(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(example.values, example.weights @ example.lens.v, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", MAPS)
def test_the_chapters_say_how_the_layer_is_built(folders, family):
    _, example = worked(folders[family], layer=1, head=0)
    text = " ".join(f"{step.formula} {step.text}" for step in chapters(example))
    assert ("rotary positions" in text) == (family == "llama")
    assert ("grouped-query attention" in text) == (family == "llama")
    assert ("are hidden from this query" in text) == (family in ("gpt2", "llama"))
    assert ("The model adds a bias" in text) == (family == "t5")
    assert ("q, k, v = x W_qkvᵀ + b_qkv" in text) == (family == "gpt2")
    table = shapes_table(example)
    heads, n, d = example.recorded.q.shape[1:]
    shapes = {step.name: step.shape for step in table.steps}
    assert shapes["scores"] == shapes["weights"] == (heads, n, n)
    assert shapes["q per head"] == (heads, n, d)
    assert shapes["merged"] == (n, heads * d)
    layer = [m for name, m in models.load(folders[family]).model.named_modules() if name == MAPS[family][0]]
    own = sum(p.numel() for name, p in layer[0].named_parameters() if "Norm" not in name and "bias.weight" not in name)
    assert table.parameters == own


def test_a_cross_attention_and_a_token_by_its_place(folders):
    loaded = models.load(folders["t5"])
    example = work_out(loaded, encode(loaded, TEXT, "all you need"), TEXT, layer=3, head=1, token="2")
    assert example.recorded.kind == "cross"
    assert example.query == 2
    assert example.lens.queries.length != example.lens.keys.length
    assert example.memory.shape[0] == example.lens.keys.length
    assert example.x.shape[0] == example.lens.queries.length
    assert "k = memory W_kᵀ" in chapters(example)[1].formula


def test_a_learned_sink_takes_its_share():
    q, k, v = torch.randn(3, 1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    from headscope.lesson.worked_example import WorkedExample
    from headscope.recording.layer import Layer
    from headscope.recording.recording import Recording

    layer = Layer("", "self", q, k, v, None, 0.5, sinks=torch.tensor([0.3, 3.0]), number=0)
    example = WorkedExample("", "one", Recording([layer]), 0, 1, 3, {}, None)
    total = example.exponentials.sum().item() + example.sink
    torch.testing.assert_close(example.weights, example.exponentials / total)
    assert example.weights.sum() < 0.9
    assert example.difference is None
    steps = chapters(example)
    assert "A learned sink adds" in steps[3].text
    assert "could not be identified" in steps[0].text
    assert "Where the key comes from could not be identified" in steps[1].text
    assert steps[5].after == ""
    assert [step.name for step in shapes_table(example).steps][-1] == "merged"


def test_a_longer_text_shows_the_largest_weights(folders):
    loaded = models.load(folders["gpt2"])
    text = "qzx vwk jhg yxq pbf mnz"
    example = work_out(loaded, encode(loaded, text), text, layer=1, head=1, token="20")
    step = chapters(example)[3]
    assert len(step.rows) == 16
    shown = sum(row[3].number for row in step.rows)
    assert f"other keys have {example.weights.sum().item() - shown:.3f} together" in step.after
    assert len(chapters(example)[0].rows) == 16


def test_which_token(folders):
    loaded = models.load(folders["bert"])
    text = "it was too was"
    example = work_out(loaded, encode(loaded, text), text, token="it")
    assert example.lens.queries.labels[example.query] == "it"
    layer = example.recorded
    was = [place for place, label in enumerate(layer.queries[0].labels) if label == "was"]
    with pytest.raises(LookError, match=rf"'was': the tokens are .* and this one stands at {was[0]}, {was[1]}\. Give"):
        position(layer, "was")
    with pytest.raises(LookError, match="'whale'.* is not among them. Give one of them, or a position from 0 to"):
        position(layer, "whale")
    assert position(layer, "0") == 0
    with pytest.raises(LookError, match="'99'.* is not among them"):
        position(layer, "99")


def test_weights_without_q_and_k_cannot_be_worked_out(folders, monkeypatch):
    from headscope.lesson import worked_example

    class Weights(worked_example.Subject):
        def __init__(self, what, recording):
            super().__init__(what, recording)
            for layer in recording.layers:
                layer.source = "weights"

    monkeypatch.setattr(worked_example, "Subject", Weights)
    with pytest.raises(ModelError, match="layer 1 of bert computes its weights in a way of its own"):
        worked(folders["bert"], layer=1)


def test_maps_are_found_by_their_numbers():
    x = torch.arange(12.0).reshape(3, 4)
    y = torch.cat([torch.zeros(3, 2), x, torch.ones(3, 1)], 1)
    assert slice_of(y, x)
    assert not slice_of(y, x + 1)
    assert not slice_of(y[:2], x)
    assert not slice_of(y[:, :3], x)
    call = LinearCall("o", SimpleNamespace(), x, y)
    assert output_map([call], x + 1e-6) is call
    assert output_map([call], 2 * x) is None
    assert output_map([], x) is None
    assert math.isclose(float(x.max()), 11)
