"""Text -> what each family of models is called with."""

import pytest

from headscope.errors import ModelError, ShapeError
from headscope.hf.models import load
from headscope.hf.text import encode, run
from tests.hf import tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {family: load(str(tiny.save(family, folder / family))) for family in ("bert", "gpt2", "t5", "llama")}


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "llama"])
@pytest.mark.parametrize("pair", [None, "the street"])
def test_every_family_runs_on_what_encode_makes(models, family, pair):
    encoded = encode(models[family], "The animal was too tired", pair)
    run(models[family], encoded)
    assert encoded.axis.length == encoded.inputs["input_ids"].shape[1]
    assert "animal" in encoded.axis.labels
    assert encoded.cut == 0


def test_a_pair_of_bert_is_two_segments(models):
    encoded = encode(models["bert"], "the animal", "the street")
    assert encoded.axis.labels == ("[CLS]", "the", "animal", "[SEP]", "the", "street", "[SEP]")
    assert encoded.inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1]]
    assert encoded.decoder is None


def test_the_decoder_is_fed_its_start_token_and_the_second_text(models):
    alone = encode(models["t5"], "the animal")
    assert alone.decoder.labels == ("<pad>",)
    assert alone.inputs["decoder_input_ids"].tolist() == [[0]]
    both = encode(models["t5"], "the animal", "the street")
    assert both.decoder.labels == ("<pad>", "the", "street")
    assert both.decoder.special == (True, False, False)
    assert both.decoder.spans == (None, (0, 3), (4, 10))
    assert list(both.decoder.ids) == both.inputs["decoder_input_ids"].tolist()[0]
    assert both.axis.labels == ("the", "animal", "</s>")


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "llama"])
def test_a_text_that_is_too_long_is_cut_and_the_rest_is_counted(models, family):
    loaded = models[family]
    text = "the animal crosses the street " * 11
    whole = len(loaded.tokenizer(text, verbose=False)["input_ids"])
    encoded = encode(loaded, text, text if family == "t5" else None)
    assert encoded.axis.length == loaded.limit
    assert encoded.cut == whole - loaded.limit > 0
    run(loaded, encoded)


def test_a_text_of_exactly_the_limit_is_not_cut(models):
    encoded = encode(models["bert"], "the " * 29)
    assert (encoded.axis.length, encoded.cut) == (31, 0)
    assert encode(models["bert"], "the " * 30).cut == 1


def test_a_text_without_tokens(models):
    with pytest.raises(ModelError, match="its tokenizer finds no token in the text"):
        encode(models["bert"], " \n ")


def test_a_model_that_does_not_read_text(models, monkeypatch):
    monkeypatch.setattr(type(models["bert"].model), "main_input_name", "pixel_values")
    with pytest.raises(ModelError, match="reads pixel_values, not text; give a model that reads text"):
        encode(models["bert"], "the animal")


def test_a_model_that_fails(models, monkeypatch):
    def forward(*args, **kwargs):
        raise RuntimeError("mat1 and mat2\ncannot be multiplied")

    encoded = encode(models["bert"], "the animal")
    monkeypatch.setattr(models["bert"].model, "forward", forward)
    with pytest.raises(ModelError, match="fails on this text: mat1 and mat2. Give a model that runs on text alone"):
        run(models["bert"], encoded)


def test_a_fault_of_our_own_is_not_blamed_on_the_model(models, monkeypatch):
    """As if the recorder broke while the model ran."""
    encoded = encode(models["bert"], "the animal")
    ours = {"__name__": "headscope.recording.session"}
    exec("def forward(*args, **kwargs):\n    raise KeyError('ours')", ours)
    monkeypatch.setattr(models["bert"].model, "forward", ours["forward"])
    with pytest.raises(KeyError, match="ours"):
        run(models["bert"], encoded)


def test_an_error_of_headscope_passes_as_it_is(models, monkeypatch):
    def forward(*args, **kwargs):
        raise ShapeError("q and k")

    encoded = encode(models["bert"], "the animal")
    monkeypatch.setattr(models["bert"].model, "forward", forward)
    with pytest.raises(ShapeError, match="q and k"):
        run(models["bert"], encoded)
