"""The example that hears digits, shortened; the parts that need no voice are tested without espeak-ng."""

import os
import shutil
from types import SimpleNamespace

import pytest
import torch

from examples import hear_digits


@pytest.fixture
def espeak():
    """Where espeak-ng is missing the tests that need it are skipped, or fail where it is required."""
    try:
        hear_digits.voices(((), (), ()))
    except SystemExit as missing:
        if os.environ.get("HEADSCOPE_REQUIRE_ESPEAK", "") not in ("", "0"):
            pytest.fail(f"HEADSCOPE_REQUIRE_ESPEAK is set: {missing}")
        pytest.skip(str(missing))


def test_without_espeak_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        SystemExit, match="espeak-ng, which speaks the digits, is not installed: apt-get install espeak-ng"
    ):
        hear_digits.main(1)


def test_strings_say_when_each_digit_sounds():
    """Words of silence with one loud sample in the middle: that sample is where the string says it is."""
    words = [torch.zeros(2001 + 200 * digit) for digit in range(10)]
    for word in words:
        word[len(word) // 2 - 20 : len(word) // 2 + 21] = 100.0
    sound, digits, middles = hear_digits.strings([words], 12, torch.Generator().manual_seed(0))
    assert sound.shape == (12, hear_digits.SAMPLES)
    assert ((digits == hear_digits.STOP) == middles.isnan()).all()
    for row, times in zip(sound, middles, strict=True):
        times = times[~times.isnan()]
        assert len(times) >= 1
        at = (times * hear_digits.RATE).long()
        assert (row[at] > 40).all()
        assert int((row > 40).sum()) <= 46 * len(at)


def test_the_stem_makes_frames_of_sound():
    frames = hear_digits.Stem()(0.1 * torch.randn(2, hear_digits.SAMPLES, generator=torch.Generator().manual_seed(0)))
    assert frames.shape == (2, hear_digits.FRAMES, hear_digits.WIDTH)


def test_every_frequency_is_in_a_filter():
    bank = hear_digits.Stem().bank
    assert bank.shape == (hear_digits.MELS, hear_digits.FFT // 2 + 1)
    assert (bank.sum(1) > 0).all()
    hertz = torch.linspace(0, hear_digits.RATE / 2, hear_digits.FFT // 2 + 1)
    assert (bank.sum(0)[(hertz > 200) & (hertz < 7000)] > 0).all()


def test_errors_are_counted():
    assert hear_digits.error([1, 2, 3], [1, 2, 3]) == 0
    assert hear_digits.error([1, 3], [1, 2, 3]) == 1
    assert hear_digits.error([1, 2, 2, 3], [1, 2, 3]) == 1
    assert hear_digits.error([4, 5], [1, 2, 3]) == 3
    assert hear_digits.error([], [1, 2]) == 2


def test_a_string_of_the_wrong_length_counts_as_wrong():
    middles = torch.tensor([[1.0, 2.0], [1.0, float("nan")]])
    found = torch.tensor([[1.05, 2.2], [0.95, 0.0]])
    assert hear_digits.near(found, middles, [[7, 7], [7]]) == pytest.approx(2 / 3)
    assert hear_digits.near(found, middles, [[7, 7], [7, 7]]) == pytest.approx(1 / 3)


class Listened:
    """Stands for a recording of one layer: head 0 looks 3 frames before a digit, head 1 at the first frame."""

    numbers, layers = (5,), [SimpleNamespace(items=2)]

    def __init__(self, middles):
        self.at = (middles.nan_to_num(1.0) / hear_digits.SECONDS).long() - 3

    def __getitem__(self, which):
        _, head, item = which
        at = self.at[item] if head == 0 else torch.zeros(hear_digits.MOST, dtype=torch.int64)
        weights = torch.nn.functional.one_hot(torch.cat((at, at[-1:])), hear_digits.FRAMES).float()
        return SimpleNamespace(weights=lambda: weights)


def test_the_best_clock_is_the_head_that_looks_at_the_digits_whatever_its_lag():
    middles = torch.full((2, hear_digits.MOST), float("nan"))
    middles[0, :3], middles[1, :2] = torch.tensor([0.6, 1.7, 2.9]), torch.tensor([0.9, 3.1])
    found = hear_digits.clocks(Listened(middles), middles, [[1, 2, 3], [4, 5]])
    assert len(found) == 3
    best = max(found)
    assert (best.share, best.layer, best.heads) == (1.0, 5, (0,))
    assert best.lag == pytest.approx(-3 * hear_digits.SECONDS, abs=hear_digits.SECONDS / 2)
    assert found[1].share < 0.5


def test_words_have_no_silence_around_them_and_are_equally_loud(espeak):
    for word in ("three", "six"):
        sound = hear_digits.speak(("en-us", 160, 50), word)
        assert 0.1 < len(sound) / hear_digits.RATE < 1
        assert float(sound.square().mean().sqrt()) == pytest.approx(0.1, rel=1e-3)
        assert float(sound[0].abs()) > 0.01 * float(sound.abs().max())


def test_in_short(espeak, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hear_digits, "TRAINING", (("en-us",), (160,), (50,)))
    monkeypatch.setattr(hear_digits, "UNSEEN", (("en-gb",), (150,), (50,)))
    monkeypatch.setattr(hear_digits, "BATCH", 4)
    found = hear_digits.main(2, str(tmp_path / "digits.png"), count=6)
    assert set(found) == {"digit error", "timed", "timed by one head"}
    assert "unseen voices: digit error" in capsys.readouterr().out
    assert (tmp_path / "digits.png").stat().st_size > 5000


@pytest.mark.slow
def test_the_whole_example(espeak, tmp_path):
    found = hear_digits.main(to=str(tmp_path / "digits.png"))
    assert found["digit error"] <= 0.05
    assert found["timed"] >= 0.85
