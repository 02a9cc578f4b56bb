"""Every architecture of transformers: those that run are recorded, equal their eager weights, and run on "
""headscope"."""

import functools

import pytest

import headscope as hs
from tests.families import tiny
from tests.families.agree import Agreement
from tests.families.examine import ABLE, CLOSE, CLOSE_GRADIENTS, Seen, examine
from tests.families.page import table
from tests.families.sweep import sweep

pytestmark = pytest.mark.filterwarnings("ignore")


@functools.cache
def seen() -> list[Seen]:
    """All architectures, examined once."""
    return [one for _, one in sweep(tiny.architectures())]


@functools.cache
def recorded() -> list[Seen]:
    """Those of which there is a recording."""
    return [one for one in seen() if one.status == "recorded"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nearly_all_that_build_are_recorded():
    able = [one for one in seen() if one.status in ABLE]
    assert [one for one in able if one.status == "failed"] == []
    # The sound encoder of Gemma 3n attends in overlapping blocks of 5 axes, which no path to a recording knows.
    assert [one.kind for one in able if one.status == "missed"] == ["gemma3n_audio"]
    assert len(recorded()) >= 120
    assert len(recorded()) >= 0.95 * len(able)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("given", "least"), [("text", 120), ("pictures", 80), ("sound", 30), ("text, pictures", 40)])
def test_models_of_every_nature_are_recorded(given, least):
    assert sum(given in one.given for one in recorded()) >= least


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_outputs_are_the_same_bits():
    assert [one.kind for one in recorded() if not one.same] == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_eager_weights_are_those_recorded():
    assert [one for one in recorded() if one.eager is not None and not one.eager <= CLOSE] == []
    assert sum(one.eager is not None for one in recorded()) >= 0.95 * len(recorded())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_headscope_agrees_with_eager():
    assert [one for one in recorded() if not agrees(one.agreed)] == []
    assert sum(one.agreed.tokens is True for one in recorded()) >= 100
    assert sum(one.agreed.outputs is not None for one in recorded()) >= 0.95 * len(recorded())


# One of each kind: encoder, decoder (grouped, windowed, with experts, between state spaces), encoder-decoder with
# positions that are biases and without, pictures (whole, in windows, with points to look at), sound, both with text.
SOME = (
    *("bert", "llama", "mistral", "gpt_neox", "mixtral", "gemma3_text", "bamba", "t5", "bart"),
    *("vit", "swin", "sam2", "whisper", "moonshine", "clip", "qwen2_vl"),
)


@pytest.mark.parametrize("kind", SOME)
def test_some_of_them(kind):
    hs.hf.register()
    one = examine(kind)
    assert one.status == "recorded"
    assert one.same
    assert one.eager is not None
    assert one.eager <= CLOSE
    assert agrees(one.agreed)
    assert one.agreed.outputs is not None


def test_a_model_without_attention_is_not_missed():
    assert examine("muse_spark_audio").status == "no attention"


def test_what_does_not_run_counts_and_is_on_the_page():
    """A model that builds and that no input fits is one of those that should be recorded."""
    seen = [Seen("good", "recorded", "text"), Seen("mute", "no input", note="wants a session"), Seen("old", "no sdpa")]
    page = table(seen)
    assert "Of 3 architectures, 2 can be built" in page
    assert "**1 of them (50.0%) are recorded.**" in page
    assert "| mute | wants a session |" in page


def agrees(agreed: Agreement) -> bool:
    """Whether what could be compared is equal."""
    return (
        (agreed.outputs or 0.0) <= CLOSE
        and (agreed.gradients or 0.0) <= CLOSE_GRADIENTS
        and agreed.tokens is not False
        and "on headscope" not in agreed.note
    )
