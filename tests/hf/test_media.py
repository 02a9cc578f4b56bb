"""Pictures and sounds become the inputs of models that read them, and of no others."""

import json
import struct
import sys
import wave

import numpy as np
import pytest
import torch

from headscope.cli.app import run
from headscope.errors import MissingExtra, ModelError
from headscope.hf import media, models
from tests.hf import tiny
from tests.raises import RAISED


def picture(path):
    from PIL import Image

    Image.fromarray(np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3)).save(path)
    return path


def sound(path, rate=8000, width=2, channels=2, frames=4000):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        tone = np.sin(np.arange(frames) / 9)
        values = np.repeat((tone * (2 ** (8 * width - 1) - 1)).astype(np.int64), channels)
        packed = values + 128 if width == 1 else values
        file.writeframes(b"".join(int(x).to_bytes(width, "little", signed=width > 1) for x in packed))
    return path


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A tiny model of pictures: no tokenizer, a processor."""
    import transformers as hf

    folder = tmp_path_factory.mktemp("models") / "vit"
    torch.manual_seed(0)
    config = hf.ViTConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=7, image_size=16, patch_size=8
    )
    hf.ViTModel(config).save_pretrained(folder)
    hf.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def hearing(tmp_path_factory):
    """A tiny model of sounds."""
    import transformers as hf

    folder = tmp_path_factory.mktemp("models") / "whisper"
    torch.manual_seed(0)
    config = hf.WhisperConfig(
        d_model=12, encoder_layers=1, decoder_layers=1, encoder_attention_heads=3, decoder_attention_heads=3,
        encoder_ffn_dim=7, decoder_ffn_dim=7, num_mel_bins=8, max_source_positions=50, vocab_size=11,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    hf.WhisperModel(config).save_pretrained(folder)
    hf.WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(folder)
    return str(folder)


def test_a_picture_is_shown_by_a_model_of_pictures(vit, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "cat.png").rename(tmp_path / "cat.txt")  # the first bytes count, not the name
    assert run(["view", "cat.txt", "--model", vit]) == 0
    printed = capsys.readouterr()
    assert "[CLS]" in printed.out
    assert printed.err == ""
    assert (tmp_path / "headscope.html").exists()


def test_a_sound_is_recorded_by_a_model_of_sounds(hearing, tmp_path, capsys, monkeypatch):
    import headscope as hs

    monkeypatch.chdir(tmp_path)
    sound(tmp_path / "talk.wav")
    assert run(["record", "talk.wav", "--model", hearing, "-o", "heard"]) == 0
    assert {layer.kind for layer in hs.load("heard").layers} == {"self", "cross"}


def test_the_times_of_what_a_model_of_sounds_wrote(hearing, tmp_path, capsys, monkeypatch):
    import transformers as hf

    import headscope as hs

    config = hf.WhisperConfig.from_pretrained(hearing)
    torch.manual_seed(3)
    model = hf.WhisperForConditionalGeneration(config)
    model.generation_config.alignment_heads = [[0, 1]]
    model.generation_config._from_model_config = False  # as in the files of Whisper, whose heads are written by hand
    model.generation_config.suppress_tokens = [0, 1, 2]  # special ones have no times
    model.save_pretrained(tmp_path / "writing")
    hf.WhisperFeatureExtractor.from_pretrained(hearing).save_pretrained(tmp_path / "writing")
    monkeypatch.chdir(tmp_path)
    sound(tmp_path / "talk.wav")
    options = ["--model", str(tmp_path / "writing"), "--generate", "4"]
    assert run(["view", "talk.wav", *options, "--json"]) == 0
    times = json.loads(capsys.readouterr().out)["times"]
    assert times["chosen_by"] == "model"
    assert run(["record", "talk.wav", *options, "-o", "talk"]) == 0
    recording = hs.load("talk")
    found = recording.token_times()
    assert times["heads"] == [list(place) for place in found.heads]
    assert [(one["text"], one["first"], one["stop"]) for one in times["tokens"]] == [
        (one.text, one.first, one.stop) for one in found.tokens
    ]
    capsys.readouterr()
    assert run(["view", "talk.headscope"]) == 0
    printed = capsys.readouterr().out
    assert f"Spoken  by the weights of heads {found.heads[0][0]}.1" in printed
    assert str(found).splitlines()[0].strip() in printed


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_samples_of_every_width(tmp_path, width):
    found = media.samples(sound(tmp_path / "a.wav", width=width), 8000)
    assert found == pytest.approx(np.sin(np.arange(4000) / 9), abs=2.1 / 2 ** (8 * min(width, 3) - 1) + 1e-6)
    assert len(media.samples(tmp_path / "a.wav", 16000)) == 8000


def test_files_that_a_model_does_not_read(vit, tmp_path, monkeypatch):
    gpt2 = models.load(str(tiny.save("gpt2", tmp_path / "gpt2")))
    with pytest.raises(ModelError, match="this is a picture, and model 'gpt2' reads text; give a model of pictures"):
        media.media_inputs(gpt2, picture(tmp_path / "a.png"), "picture")
    loaded = models.load(vit)
    with pytest.raises(ModelError, match="this is a sound, and model 'vit' reads pixel_values; give a model of sounds"):
        media.media_inputs(loaded, sound(tmp_path / "a.wav"), "sound")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(ModelError, match="cut.png: this picture cannot be read"):
        media.media_inputs(loaded, tmp_path / "cut.png", "picture")
    monkeypatch.setattr(media, "MOST_PIXELS", 1000)
    with pytest.raises(ValueError, match="it has 30 x 40 pixels, and may have 1000"):
        media.raw(tmp_path / "a.png", "picture", loaded)
    with pytest.raises(ModelError, match="it has 30 x 40 pixels, and may have 1000"):
        media.media_inputs(loaded, tmp_path / "a.png", "picture")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra, match="pictures are read with Pillow: pip install pillow"):
        media.media_inputs(loaded, tmp_path / "a.png", "picture")


def test_sounds_that_are_not_read(tmp_path, monkeypatch):
    (tmp_path / "a.mp3").write_bytes(b"ID3" + struct.pack("<9q", *range(9)))
    with pytest.raises(ModelError, match="of sounds, WAV is read; convert it, for example: ffmpeg"):
        media.samples(tmp_path / "a.mp3", 16000)
    monkeypatch.setattr(media, "MOST_FRAMES", 100)
    with pytest.raises(ValueError, match="it has 4000 frames, and may have 100"):
        media.samples(sound(tmp_path / "a.wav"), 16000)


def test_a_picture_without_a_model_and_with_a_second_text(vit, tmp_path, capsys):
    path = str(picture(tmp_path / "a.png"))
    for more, says in (
        ([], "the packaged model reads text. Give a model of pictures with --model"),
        (["--model", vit, "--pair", "x"], "--pair is a second text beside a text. Leave out --pair"),
    ):
        assert run(["view", path, "-o", str(tmp_path / "x.html"), *more]) == 2
        assert says in capsys.readouterr().err
        RAISED.printed(says)
