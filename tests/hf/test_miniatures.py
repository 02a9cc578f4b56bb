"""The picture and the spectrogram of what a model was given."""

import io

import numpy as np
import pytest
import torch

import headscope as hs
from headscope.errors import RecordingError
from headscope.hf import miniatures
from headscope.recording.recording import Recording
from tests.view.samples import layer


def read(content: bytes) -> np.ndarray:
    return np.asarray(pytest.importorskip("PIL.Image").open(io.BytesIO(content)))


@pytest.mark.parametrize("normal", [((0.0,) * 3, (1.0,) * 3), *miniatures.NORMALS])
def test_normalisations_are_undone(normal):
    pixels = torch.rand(3, 11, 7, generator=torch.Generator().manual_seed(0))
    pixels[:, 0, 0], pixels[:, 0, 1] = 0.0, 1.0
    mean, deviation = (torch.tensor(x)[:, None, None] for x in normal)
    found = read(miniatures.picture((pixels - mean) / deviation))
    assert np.abs(found / 255 - pixels.permute(1, 2, 0).numpy()).max() < 0.02


def test_other_numbers_go_from_least_to_most_and_what_is_no_picture_is_none():
    found = read(miniatures.picture(torch.linspace(-40, 90, 12).view(1, 3, 4)))
    assert (found.min(), found.max()) == (0, 255)
    assert miniatures.picture(torch.full((3, 2, 2), torch.nan)) is None
    assert miniatures.picture(torch.zeros(4, 2, 2)) is None


def test_a_tone_is_a_line_at_its_pitch_and_the_silence_after_it_is_left_out():
    time = torch.arange(16000) / 16000
    tone = torch.sin(2 * torch.pi * 1000 * time) * (time < 0.5)
    bands = miniatures.spectrogram(tone, 50)
    assert bands.shape == (64, 50)
    mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 66)[1:-1]
    loudest = 700 * (10 ** (mels[bands[:, 10].argmax()] / 2595) - 1)
    assert loudest == pytest.approx(1000, rel=0.08)
    assert abs(miniatures.sounding(bands, 50) - 25) <= 1
    assert miniatures.sounding(np.random.default_rng(0).random((4, 50)), 50) == 50
    assert miniatures.spectrogram(torch.zeros(0), 5) is None


def test_whisper_s_spectrogram_keeps_two_columns_for_a_frame():
    axis = miniatures.of_axis(hs.Axis.frames(30, 0.02), torch.randn(8, 60))
    assert read(axis.thumbnail).shape == (8, 60)
    assert not any(axis.special)


def test_a_recording_keeps_what_each_item_saw(tmp_path):
    class Eyes(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cut = torch.nn.Conv2d(3, 8, 4, stride=4)
            self.layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x):
            return self.layer(self.cut(x).flatten(2).mT)

    pixels = torch.rand(2, 3, 12, 8)
    model = Eyes().eval()
    with torch.no_grad(), hs.record(model) as recording:
        model(pixels)
    recording.save(tmp_path / "seen")
    for found in (recording, hs.load(tmp_path / "seen")):
        for item in range(2):
            seen = read(found[0, 0, item].keys.thumbnail)
            assert np.abs(seen / 255 - pixels[item].permute(1, 2, 0).numpy()).max() < 0.01


def test_a_thumbnail_that_is_none_is_refused(tmp_path):
    axis = hs.Axis.patches(2, 3, thumbnail=b"not a PNG" * 9)
    with pytest.raises(RecordingError, match=r"thumbnail: not a PNG of at most 4096 x 4096 pixels"):
        Recording([layer(q=6, k=6, queries=axis, keys=axis)]).save(tmp_path / "bad")
    assert not list(tmp_path.iterdir())
