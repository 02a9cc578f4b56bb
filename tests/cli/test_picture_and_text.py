"""A picture and a text together in the command line, and names that are both a recording and a word."""

import json

import numpy as np
import pytest
import torch
import transformers as hf

import headscope as hs
from headscope.cli.app import run
from headscope.cli.media import recorded_together
from headscope.cli.reading import read
from headscope.errors import HeadscopeError
from headscope.hf import models
from headscope.hf.picture_and_text import prompt_of, together_inputs
from tests.hf.tiny import save

SMALL = {"hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 23}
SEES = SMALL | {"image_size": 24, "patch_size": 8}
WORDS = "is the animal red"


@pytest.fixture
def here(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path


def words(image: bool):
    """A tokenizer of few words, with a token that stands for a picture."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as kinds

    vocabulary = ["[PAD]", "[UNK]", "<image>", "<s>", "</s>", *WORDS.split(), "yes", "no"]
    tokenizer = Tokenizer(kinds.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"additional_special_tokens": ["<image>"]} if image else {}
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", bos_token="<s>", eos_token="</s>", **special
    )


def pictures(**options):
    return hf.CLIPImageProcessor(size={"height": 24, "width": 24}, do_center_crop=False, **options)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "clip"
    torch.manual_seed(0)
    text = SMALL | {"vocab_size": 11, "max_position_embeddings": 13, "eos_token_id": 4, "bos_token_id": 3}
    hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=SEES)).save_pretrained(folder)
    hf.CLIPProcessor(pictures(), words(image=False)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "llava"
    torch.manual_seed(0)
    text = hf.LlamaConfig(**SMALL, vocab_size=11, max_position_embeddings=41, num_key_value_heads=5, pad_token_id=0)
    config = hf.LlavaConfig(
        text_config=text, vision_config=hf.CLIPVisionConfig(**SEES), image_token_index=2, vision_feature_layer=-1
    )
    hf.LlavaForConditionalGeneration(config).save_pretrained(folder)
    hf.LlavaProcessor(
        pictures(),
        words(image=True),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "blip"
    torch.manual_seed(0)
    text = SMALL | {"vocab_size": 11, "max_position_embeddings": 13, "encoder_hidden_size": 20, "bos_token_id": 3}
    config = hf.BlipConfig(
        text_config=text | {"eos_token_id": 4, "sep_token_id": 4, "pad_token_id": 0}, vision_config=SEES
    )
    hf.BlipForQuestionAnswering(config).save_pretrained(folder)
    hf.BlipProcessor(hf.BlipImageProcessor(size={"height": 24, "width": 24}), words(image=False)).save_pretrained(
        folder
    )
    return str(folder)


def test_clip_reads_both_in_towers_of_their_own(clip, here, capsys):
    for order in (["photo.png", WORDS], [WORDS, "photo.png"]):
        assert run(["view", *order, "--model", clip, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["title"] == f"photo.png / {WORDS}"
    assert run(["record", "photo.png", WORDS, "--model", clip, "-o", "both"]) == 0
    layers = hs.load("both").layers
    kinds = {layer.name.split("_")[0]: layer.keys[0] for layer in layers}
    assert kinds["text"].labels == tuple(WORDS.split())
    assert (kinds["vision"].grid, kinds["vision"].source) == ((3, 3), "photo.png")


def test_llava_has_the_patches_within_its_text_and_answers(llava, here):
    recording, made = recorded_together(here / "photo.png", WORDS, llava, 3)
    language = [layer for layer in recording.layers if layer.keys[0].kind == "tokens"]
    axis = language[0].keys[0]
    assert axis.labels[:13] == (*9 * ["<image>"], *WORDS.split())
    assert len(made) == 3
    assert axis.labels[13:] == tuple(made[:2])  # the last one it made it did not read
    from headscope.view.regions import regions

    vision = next(layer.keys[0] for layer in recording.layers if layer.keys[0].kind == "patches")
    (region,) = regions(axis, [vision])
    assert (region.start, region.rows, region.columns, region.thumbnail) == (0, 3, 3, vision.thumbnail)
    # The recorded weights are those of the model: the same inputs by hand.
    loaded = models.load(llava, together=True)
    with torch.no_grad():
        exact = loaded.model(**together_inputs(loaded, here / "photo.png", WORDS), output_attentions=False)
        eager = type(loaded.model).from_pretrained(llava, attn_implementation="eager").eval()
        weights = eager(**together_inputs(loaded, here / "photo.png", WORDS), output_attentions=True).attentions
    assert exact.logits.shape[1] == 13
    torch.testing.assert_close(language[0].head(0, 0).weights()[:13, :13], weights[0][0, 0], atol=1e-6, rtol=1e-5)


def test_a_question_about_a_picture_looks_at_its_patches(blip, here):
    recording, _ = recorded_together(here / "photo.png", WORDS, blip)
    cross = [layer for layer in recording.layers if layer.kind == "cross" and layer.keys[0].kind == "patches"]
    assert cross
    assert cross[0].keys[0] == hs.Axis.patches(3, 3, before=["[CLS]"], source="photo.png")
    assert cross[0].queries[0].labels[-4:] == tuple(WORDS.split())


def test_what_is_not_one_picture_and_one_text(clip, here, tmp_path):
    def fails(*given, match):
        with pytest.raises(HeadscopeError, match=match):
            read(given[0], given[2] if len(given) > 2 else clip, given[3] if len(given) > 3 else None, beside=given[1])

    fails("photo.png", "photo.png", match="of two inputs one is a picture and the other a text about it")
    fails("a text", "another", match="A second text goes with --pair; quote a text that has spaces")
    fails(
        "photo.png", WORDS, clip, "more", match="--pair is a second text beside a text, and here one is beside a pict"
    )
    fails("photo.png", WORDS, None, match="the packaged model reads text; give a model of both with --model")
    fails("photo.png", WORDS, str(save("bert", tmp_path / "bert")), match="does not read a picture and a text together")
    (here / "cut.png").write_bytes((here / "photo.png").read_bytes()[:99])
    fails("cut.png", WORDS, match="its processor fails on the picture cut.png with this text")
    with pytest.raises(HeadscopeError, match="reads a picture and a text together; give the text, too: headscope view"):
        read("photo.png", clip)


def test_the_form_in_which_a_model_is_asked():
    class Processor:
        image_token = "<image>"

    processor = Processor()
    assert prompt_of(processor, "what") == "<image>\nwhat"
    assert prompt_of(processor, "see <image>") == "see <image>"
    processor.num_query_tokens = 32
    assert prompt_of(processor, "what") == "what"
    processor.chat_template = "a template"
    processor.apply_chat_template = lambda said, add_generation_prompt: json.dumps(said)
    assert json.loads(prompt_of(processor, "what"))[0]["content"] == [
        {"type": "image"},
        {"type": "text", "text": "what"},
    ]


class TestNames:
    def test_a_recording_by_its_name_without_the_suffix(self, here, capsys):
        layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
        with torch.no_grad(), hs.record(layer) as recording:
            layer(torch.ones(1, 3, 8))
        recording.save("cats")
        for name in ("cats", "cats.headscope", "./cats"):
            assert run(["view", name]) == 0
            printed = capsys.readouterr()
            assert ("taken for the recording cats.headscope; pipe it in" in printed.err) == (name == "cats")
        with pytest.raises(HeadscopeError, match="a recording, which has its model and text in it. Leave out --pair"):
            read("cats", None, "more")

    def test_a_word_that_is_also_a_folder_without_a_recording(self, here, tmp_path_factory, capsys):
        (here / "animal").mkdir()
        model = str(save("bert", tmp_path_factory.mktemp("models") / "bert"))
        assert run(["view", "animal", "--model", model]) == 0
        printed = capsys.readouterr()
        assert "the folder animal holds no recording, so the text is looked at" in printed.err
        assert "animal" in printed.out
        assert run(["view", "./animal"]) == 2
        assert "has no recording.json" in capsys.readouterr().err

    def test_a_file_comes_first(self, here):
        from headscope.cli.recordings import recording_named

        (here / "notes.txt").write_text("the animal")
        (here / "notes.txt.headscope").mkdir()
        (here / "notes.txt.headscope" / "recording.json").write_text("{}")
        assert recording_named("notes.txt") is None
        assert recording_named("notes.txt.headscope") is not None
        assert [recording_named(one) for one in ("-", " ", "~nobody-has-this-name/x", "a" * 5000, "a\0b")] == [None] * 5
