"""What the positions are is read from what the model was given: ids, pixels, sound."""

import warnings
from types import SimpleNamespace

import pytest
import torch
import transformers as hf
from torch import nn

import headscope as hs
from headscope.hf.pictures import patch_axis
from headscope.hf.sounds import frame_axis
from headscope.hf.vocabulary import ids_axis, tokenizer_at_hand
from tests.hf.tiny import SENTENCES, gpt2_tokenizer, save
from tests.recording.tiny import build

SMALL = {"hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 23}


def recording_of(model, inputs, **options) -> hs.Recording:
    with torch.no_grad(), hs.record(model, **options) as recording:
        model(**inputs)
    return recording


def ids_of(x: torch.Tensor) -> tuple[int, ...]:
    return tuple(x.tolist())


class TestIds:
    @pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
    def test_every_item_has_its_own(self, kind):
        model, inputs = build(kind)
        recording = recording_of(model, inputs)
        for layer in recording.layers:
            assert layer.queries == layer.keys
            assert [axis.ids for axis in layer.keys] == [ids_of(row) for row in inputs["input_ids"]]
            assert layer.keys[0].labels == tuple(map(str, inputs["input_ids"][0].tolist()))
            # What the attention mask hides is no content.
            assert layer.keys[1].special == (False,) * 7 + (True,) * 4
        assert recording.layers[0].keys[0] is recording.layers[1].keys[0]

    @pytest.mark.parametrize("name", ["image_token_id", "image_token_index"])
    def test_patches_within_a_text_are_named_without_a_tokenizer(self, name):
        model, inputs = build("gpt2")
        ids = inputs["input_ids"].clone()
        ids[0, 2:6] = 9
        ids[0, 6:] = 8
        setattr(model.config, name, 9)
        keys = recording_of(model, {"input_ids": ids})[0, 0].keys
        assert keys.labels[2:7] == (*4 * ["<image>"], "8")
        assert keys.ids == ids_of(ids[0])

    def test_given_by_position_selected_and_again(self):
        model, inputs = build("gpt2")
        ids = inputs["input_ids"]
        with torch.no_grad(), hs.record(model, queries="last", layers=1) as recording:
            model(ids)
            model(ids[:, :5] + 1)
        first, second = recording.layers
        assert first.queries[0].ids == ids_of(ids[0, 10:])
        assert second.keys[1].ids == ids_of(ids[1, :5] + 1)

    def test_the_ids_are_those_of_the_call_also_when_they_change_later(self):
        model, inputs = build("gpt2")
        ids = inputs["input_ids"].clone()
        with torch.no_grad(), hs.record(model) as recording:
            model(ids)
            ids.zero_()
        assert recording[0, 0].keys.ids == ids_of(inputs["input_ids"][0])

    def test_encoder_decoder_and_cross(self):
        model, inputs = build("t5")
        recording = recording_of(model, inputs)
        source, target = ids_of(inputs["input_ids"][1]), ids_of(inputs["decoder_input_ids"][1])
        sides = [(layer.queries[1].ids, layer.keys[1].ids) for layer in recording.layers]
        assert sides == [(source, source)] * 2 + [(target, target), (target, source)] * 2
        assert recording.layers[3].keys[1].special == (False,) * 7 + (True,) * 4

    def test_labels_and_an_equal_length(self):
        model, inputs = build("t5")
        labels = inputs["input_ids"].flip(1)
        recording = recording_of(model, {"input_ids": inputs["input_ids"], "labels": labels})
        cross = recording.layers[3]
        assert cross.queries[0].ids == (0, *ids_of(labels[0, :-1]))
        assert cross.keys[0].ids == ids_of(inputs["input_ids"][0])

    def test_only_the_cross_attention_was_asked_for(self):
        model, inputs = build("t5")
        cross = recording_of(model, inputs, kind="cross").layers[0]
        assert (cross.queries[0].ids, cross.keys[0].ids) == tuple(
            ids_of(inputs[name][0]) for name in ("decoder_input_ids", "input_ids")
        )

    def test_our_own_transformer(self):
        from headscope.nn.recipes import paper

        model = paper(11, embed_dim=12, num_heads=2, layers=1, hidden_dim=14).eval()
        target, source = torch.randint(11, (2, 5)), torch.randint(11, (2, 7))
        with torch.no_grad(), hs.record(model) as recording:
            model(target=target, source=source)
        sides = [(layer.queries[1].ids, layer.keys[1].ids) for layer in recording.layers]
        a, b = ids_of(source[1]), ids_of(target[1])
        assert sides == [(a, a), (b, b), (b, a)]

    def test_plain_modules_have_positions(self):
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
        with torch.no_grad(), hs.record(layer) as recording:
            layer(torch.ones(1, 3, 8))
        assert recording[0, 0].keys == hs.Axis.positions(3)

    def test_a_cache_from_before_the_block(self):
        model, inputs = build("gpt2")
        ids = inputs["input_ids"]
        with torch.no_grad():
            cache = model(ids[:, :6]).past_key_values
            with hs.record(model, queries=[-1]) as recording:
                model(ids[:, 6:], past_key_values=cache)
        assert recording[0, 0].queries.ids == ids_of(ids[0, 10:])
        assert recording[0, 0].keys == hs.Axis.positions(11)


class TestGenerations:
    @pytest.mark.parametrize("beams", [1, 4])
    def test_the_ids_of_what_was_generated(self, beams):
        model, inputs = build("gpt2")
        model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
        inputs["attention_mask"] = inputs["attention_mask"].flip(1)
        options = {"max_new_tokens": 5, "num_beams": beams, "num_return_sequences": beams, "do_sample": False}
        with torch.no_grad(), hs.record(model) as recording:
            output = model.generate(**inputs, **options)
        for layer in recording.layers:
            assert len(layer.keys) == 2 * beams
            for item, axis in enumerate(layer.keys):
                assert axis.length == 15
                assert axis.special[:4] == ((item // beams == 1),) * 4
            # Every sequence that was returned is one of the beams; a beam may have been left at the last step.
            assert {ids_of(row[:15]) for row in output} <= {axis.ids for axis in layer.keys}
        # The ids are those that made the keys.
        for item, axis in enumerate(recording.layers[0].keys):
            again = recording_of(model, {"input_ids": torch.tensor([axis.ids])}, layers=0).layers[0]
            start = 4 * (item // beams)  # what stands before it was padding, which has no place of its own
            if not start:
                torch.testing.assert_close(recording.layers[0].k[item], again.k[0], atol=1e-5, rtol=1e-4)

    def test_encoder_decoder(self, tmp_path):
        model, inputs = build("t5")
        inputs.pop("decoder_input_ids")
        options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "num_beams": 2}
        with torch.no_grad(), hs.record(model, to=tmp_path / "one") as recording:
            output = model.generate(**inputs, **options)
        source = ids_of(inputs["input_ids"][1])
        for one in (recording, hs.load(tmp_path / "one")):
            cross = next(layer for layer in one.layers if layer.kind == "cross")
            assert cross.items == 4
            assert [axis.ids for axis in cross.keys[2:]] == [source, source]
            assert cross.queries[2].ids[:1] == ids_of(output[1, :1])
            assert cross.queries[2].length == 4
            assert one.layers[0].keys[1].ids == source


class TestWords:
    def test_a_tokenizer_beside_the_model_is_found(self, tmp_path):
        folder = save("bert", tmp_path / "model")
        model = hf.AutoModel.from_pretrained(folder).eval()
        text = SENTENCES[0]
        tokenizer = hf.AutoTokenizer.from_pretrained(folder)
        inputs = tokenizer(text, return_tensors="pt")
        axis = recording_of(model, inputs)[0, 0].keys
        assert axis.labels[:4] == ("[CLS]", "the", "animal", "didn")
        assert axis.special == (True, *(False,) * (axis.length - 2), True)
        said = tokenizer.decode(axis.ids, clean_up_tokenization_spaces=False)
        assert said[slice(*axis.spans[2])] == "animal"

    def test_a_tokenizer_that_is_given(self):
        tokenizer = gpt2_tokenizer()
        config = hf.GPT2Config(vocab_size=len(tokenizer), n_positions=41, n_embd=21, n_layer=1, n_head=3)
        model = hf.GPT2Model._from_config(config, attn_implementation="sdpa").eval()
        recording = recording_of(model, tokenizer("the animal 🙂", return_tensors="pt"))
        assert recording[0, 0].keys.labels[0].isdigit()
        axis = recording.tokens(tokenizer=tokenizer)[0, 0].keys
        assert axis.labels[-6:] == ("animal", "␣", "🙂₁", "🙂₂", "🙂₃", "🙂₄")
        assert axis.spans[-6:] == ((4, 10), (10, 11), *((11, 12),) * 4)

    def test_ids_that_are_no_text_again(self):
        tokenizer = gpt2_tokenizer()
        cut = tokenizer(" animal 🙂 animal")["input_ids"]
        del cut[3]  # a part of the emoji
        axis = ids_axis(cut, tokenizer)
        assert axis.labels[0] == "animal"
        assert axis.labels[-1] == "animal"
        assert axis.spans == (None,) * len(cut)

    @pytest.mark.parametrize("name", ["nobody/has-this-model", "here/../nowhere", "a:b"])
    def test_nothing_is_downloaded(self, name):
        assert tokenizer_at_hand(name) is None

    def test_the_packaged_model_by_its_name_on_the_hub(self):
        assert len(tokenizer_at_hand("sentence-transformers/all-MiniLM-L6-v2")) == 30522


def picture_model(kind: str) -> nn.Module:
    sizes = SMALL | {"image_size": 24, "patch_size": 8}
    config = {
        "vit": lambda: hf.ViTConfig(**sizes),
        "deit": lambda: hf.DeiTConfig(**sizes),
        "dinov2": lambda: hf.Dinov2WithRegistersConfig(**sizes, num_register_tokens=4),
        "siglip": lambda: hf.SiglipVisionConfig(**sizes),
        "clip": lambda: hf.CLIPVisionConfig(**sizes),
    }[kind]()
    names = {"siglip": "SiglipVisionModel", "clip": "CLIPVisionModel"}
    cls = getattr(hf, names[kind]) if kind in names else hf.AutoModel
    return (cls._from_config if kind in names else cls.from_config)(config, attn_implementation="sdpa").eval()


REGISTERS = ("[CLS]", "[REG 1]", "[REG 2]", "[REG 3]", "[REG 4]")


class TestPictures:
    @pytest.mark.parametrize(
        ("kind", "before"),
        [
            ("vit", ("[CLS]",)),
            ("deit", ("[CLS]", "[DIST]")),
            ("dinov2", REGISTERS),
            ("siglip", ()),
            ("clip", ("[CLS]",)),
        ],
    )
    def test_patches_after_named_tokens(self, kind, before):
        recording = recording_of(picture_model(kind), {"pixel_values": torch.randn(2, 3, 24, 24)})
        for layer in recording.layers:
            assert layer.keys == [hs.Axis.patches(3, 3, before=before)] * 2
            assert layer.kind == "cross" or layer.queries == layer.keys  # or a probe that pools the picture

    def test_a_picture_of_another_size_than_the_config_says(self):
        inputs = {"pixel_values": torch.randn(1, 3, 16, 40), "interpolate_pos_encoding": True}
        assert recording_of(picture_model("vit"), inputs)[0, 0].keys.grid == (2, 5)

    def test_text_and_picture_in_one_model(self):
        config = hf.CLIPConfig(
            text_config=SMALL | {"vocab_size": 31, "max_position_embeddings": 13, "eos_token_id": 2},
            vision_config=SMALL | {"image_size": 24, "patch_size": 8},
        )
        model = hf.CLIPModel._from_config(config, attn_implementation="sdpa").eval()
        ids = torch.randint(3, 31, (2, 10))  # as many as there are patches
        recording = recording_of(model, {"input_ids": ids, "pixel_values": torch.randn(2, 3, 24, 24)})
        kinds = {layer.name.split("_")[0]: layer.keys[0].kind for layer in recording.layers}
        assert kinds == {"text": "tokens", "vision": "patches"}

    def test_a_model_of_somebody_else(self):
        class Eyes(nn.Module):
            def __init__(self):
                super().__init__()
                self.cut = nn.Conv2d(3, 8, 4, stride=4)
                self.class_token = nn.Parameter(torch.zeros(1, 1, 8))
                self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

            def forward(self, x):
                patches = self.cut(x).flatten(2).mT
                return self.layer(torch.cat([self.class_token.expand(len(x), -1, -1), patches], 1))

        model = Eyes().eval()
        with torch.no_grad(), hs.record(model) as recording:
            model(torch.randn(2, 3, 12, 8))
        assert recording[0, 0].keys == hs.Axis.patches(3, 2, before=["[CLS]"])

    def test_several_class_tokens_are_numbered(self):
        module = nn.Conv2d(3, 5, 4, stride=4)
        module.cls_token = nn.Parameter(torch.zeros(1, 2, 5))
        assert patch_axis(module, (1, 3, 8, 4), 4).labels[:3] == ("[CLS 1]", "[CLS 2]", "(0, 0)")


class TestSound:
    def test_whisper(self):
        model, inputs = build("whisper")
        recording = recording_of(model, inputs)
        frames, said = hs.Axis.frames(15, 0.02), ids_of(inputs["decoder_input_ids"][0])
        assert recording[0, 0].keys == frames
        cross = recording.layers[3]
        assert (cross.kind, cross.queries[0].ids, cross.keys) == ("cross", said, [frames] * 2)

    def test_whisper_generates(self):
        model, inputs = build("whisper")
        inputs.pop("decoder_input_ids")
        with torch.no_grad(), hs.record(model) as recording:
            model.generate(**inputs, max_new_tokens=3, num_beams=2)
        cross = next(layer for layer in recording.layers if layer.kind == "cross")
        assert cross.keys == [hs.Axis.frames(15, 0.02)] * 4
        assert cross.queries[0].kind == "tokens"

    def test_a_conformer(self):
        module = nn.Linear(1, 1)
        module.config = SimpleNamespace(subsampling_factor=8, num_mel_bins=80)
        assert frame_axis(module, "input_features", (2, 160, 80), 20).seconds == pytest.approx(0.08)
        assert frame_axis(module, "input_features", (2, 160, 80), 40) is None
        assert frame_axis(module, "input_features", (160, 80), 20) is None

    def test_wav2vec2(self):
        config = hf.Wav2Vec2Config(
            **SMALL,
            conv_dim=(8, 8, 8),
            conv_stride=(5, 2, 2),
            conv_kernel=(10, 3, 3),
            num_feat_extract_layers=3,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
        )
        model = hf.Wav2Vec2Model._from_config(config, attn_implementation="sdpa").eval()
        axis = recording_of(model, {"input_values": torch.randn(2, 1000)})[0, 0].keys
        assert (axis.kind, axis.seconds, axis.length) == ("frames", 20 / 16000, 49)


@pytest.mark.parametrize("sizes", [(20, 12), (2, 5, 12), (2, 3, 3, 8, 8), (0, 3, 8, 8)])
def test_pixels_of_any_number_of_axes_do_not_stop_a_recording(sizes):
    """Patches in a row (Qwen2-VL), in a batch (SigLIP 2), films, and no picture at all."""

    class Model(nn.Module):
        def forward(self, pixel_values, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    with warnings.catch_warnings(), hs.record(model := Model()) as recording:
        warnings.simplefilter("error")
        model(torch.zeros(sizes), torch.randn(2, 3, 7, 5))
    assert recording[0, 2, 1].weights().shape == (7, 7)


def test_inputs_that_cannot_be_read_leave_the_weights(monkeypatch):
    model, inputs = build("bert")

    def fails(*_):
        raise IndexError("of a kind that nobody knew")

    monkeypatch.setattr("headscope.recording.axes.inputs.input_arguments", fails)
    with pytest.warns(UserWarning, match=r"numbered and have no labels.* IndexError: of a kind that nobody"):
        recording = recording_of(model, inputs)
    assert recording.layers[0].keys[0] == hs.Axis.positions(11)
