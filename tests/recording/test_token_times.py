"""When tokens were spoken: a head made to rise, the heads that a model names, words, silence, and what is refused."""

import json

import pytest
import torch

import headscope as hs
from headscope.errors import LookError, RecordingError
from headscope.recording.recording import Layer, Recording
from headscope.recording.token_times import alignment_heads
from tests.recording.tiny import build

# How many of the 31 frames each of five rows looks at; the last two frames are silence.
LENGTHS = (3, 7, 5, 11, 3)
LABELS, SPECIAL = ("<s>", "▁good", "▁mor", "ning", "</s>"), (True, False, False, False, True)
TEXT = hs.Axis.tokens(LABELS, special=SPECIAL)


def frames(silence: int = 2, seconds: float = 0.1) -> hs.Axis:
    plain = hs.Axis.frames(sum(LENGTHS) + silence, seconds)
    return hs.Axis(
        "frames", plain.length, plain.labels, tuple(i >= sum(LENGTHS) for i in range(plain.length)), seconds=seconds
    )


def layer(*kinds: str, number: int = 0, **options) -> Layer:
    """Cross-attention whose heads rise along the sound, run back, or rest on one frame."""
    own = torch.arange(5).repeat_interleave(torch.tensor(LENGTHS))
    own = torch.cat([own, torch.full((2,), 4)])
    keys = {"rise": torch.eye(5)[own], "back": torch.eye(5)[4 - own], "rest": torch.zeros(31, 5)}
    keys["rest"][3] = 1.0
    q = 9 * torch.stack([torch.ones(5, 5) if kind == "rest" else torch.eye(5) for kind in kinds])[None]
    k = torch.stack([keys[kind] for kind in kinds])[None]
    name = f"model.decoder.layers.{number}.encoder_attn"
    axes = {"queries": [TEXT], "keys": [frames()]} | options
    return Layer(name, "cross", q, k, None, None, 1.0, number=number, **axes)


def test_a_token_is_spoken_where_the_row_before_it_looks():
    found = Recording([layer("rest", "rise", "back")]).token_times()
    assert (found.heads, found.chosen_by) == (((0, 1),), "rise")
    assert [(one.text, one.position, one.first, one.stop) for one in found.tokens] == [
        ("▁good", 1, 0, 3),
        ("▁mor", 2, 3, 10),
        ("ning", 3, 10, 15),
    ]
    assert [(one.text, one.start, one.end) for one in found.words] == [
        ("good", 0.0, pytest.approx(0.3)),
        ("morning", pytest.approx(0.3), pytest.approx(1.5)),
    ]
    assert str(found) == "  0.00 to   0.30 s  good\n  0.30 to   1.50 s  morning"


def test_without_a_start_token_a_token_is_its_own_row_and_silence_is_left_out():
    texts = [hs.Axis.tokens(["a", "b", "c", "d", "e"])]
    found = Recording([layer("rise", queries=texts)]).token_times()
    ends = torch.tensor(LENGTHS).cumsum(0).tolist()
    assert [(one.first, one.stop) for one in found.tokens] == list(zip([0, *ends], ends, strict=False))


def test_heads_of_the_model_come_first_and_those_of_the_caller_before_them(tmp_path):
    layers = [layer("rise", "rest", number=number) for number in (2, 3)]
    told = Recording(layers, alignment_heads=((3, 0), (7, 0)))
    assert (told.token_times().heads, told.token_times().chosen_by) == (((3, 0),), "model")
    asked = told.token_times(heads=[(2, 0)])
    assert (asked.heads, asked.chosen_by) == (((2, 0),), "caller")
    loaded = hs.load(told.save(tmp_path / "told"))
    assert loaded.alignment_heads == ((3, 0), (7, 0))
    assert loaded.token_times() == told.token_times()


def test_an_altered_list_of_heads_is_refused(tmp_path):
    path = Recording([layer("rise")], alignment_heads=((0, 0),)).save(tmp_path / "told")
    file = path / "recording.json"
    content = json.loads(file.read_text())
    content["recording"]["alignment_heads"] = [[-1, 0]]
    file.write_text(json.dumps(content))
    with pytest.raises(RecordingError):
        hs.load(path)


def test_a_model_is_asked_when_it_is_recorded():
    model, inputs = build("whisper")
    model.generation_config.alignment_heads = [[1, 2], [0, 4]]
    with torch.no_grad(), hs.record(model) as recording:
        model(**inputs)
    assert recording.alignment_heads == ((1, 2), (0, 4))
    found = recording.token_times(item=1)
    assert found.chosen_by == "model"
    cross = {number for number, layer in zip(recording.numbers, recording.layers, strict=True) if layer.kind == "cross"}
    assert {number for number, _ in found.heads} == cross
    starts = [one.first for one in found.tokens]
    assert starts == sorted(starts)
    assert all(one.first <= one.stop <= 15 for one in found.tokens)


@pytest.mark.parametrize("strange", [None, 7, "ab", [[1]], [["x", 0]], [[-1, 0]]])
def test_what_a_config_holds_instead_of_heads_names_none(strange):
    model, _ = build("whisper")
    model.generation_config.alignment_heads = strange
    assert alignment_heads(model) == ()
    assert alignment_heads(torch.nn.Linear(1, 1)) == ()


def test_weights_that_are_no_numbers_are_refused():
    one = layer("rise")
    one.q[0, 0, 1] = float("nan")
    with pytest.raises(LookError, match="no head moves along the sound"):
        Recording([one]).token_times()
    with pytest.raises(LookError, match=r"the weights of heads \[\(0, 0\)\] hold NaN"):
        Recording([one], alignment_heads=[(0, 0)]).token_times()


def test_what_has_no_times():
    with pytest.raises(LookError, match="0 layers with cross-attention from tokens to frames of sound"):
        Recording([layer("rise", keys=[hs.Axis.positions(31)])]).token_times()
    with pytest.raises(LookError, match="1 layers with cross-attention .* over 1 pairs of axes"):
        Recording([layer("rise", queries=[hs.Axis.positions(5)])]).token_times()
    with pytest.raises(LookError, match="every token is special"):
        Recording([layer("rise", queries=[hs.Axis.tokens(LABELS, special=[True] * 5)])]).token_times()
    with pytest.raises(LookError, match=r"heads \[\(0, 5\)\] do not look from tokens at sound; give .* 0\."):
        Recording([layer("rise")]).token_times(heads=[(0, 5)])
    with pytest.raises(LookError, match=r"the correlation of token and frame is 0\.\d\d at most, and 0\.5 is needed"):
        Recording([layer("rest")]).token_times()
