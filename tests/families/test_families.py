"""Every architecture of transformers: those that run are recorded, equal their eager weights, and run on "
""headscope"."""

import functools

import pytest

import headscope as hs
from tests.families import tiny
from tests.families.agree import Agreement
from tests.families.examine import ABLE, CLOSE, CLOSE_GRADIENTS, Seen, examine
from tests.families.page import table, without
from tests.families.reasons import MIXED, reason_of
from tests.families.sweep import sweep

# How many of those without sdpa are recorded exactly.
LEAST_WITHOUT = 90

pytestmark = pytest.mark.filterwarnings("ignore")


@functools.cache
def seen() -> list[Seen]:
    """All architectures that have sdpa, examined once."""
    return [one for _, one in sweep([kind for kind in tiny.architectures() if not tiny.without_sdpa(kind)])]


@functools.cache
def seen_without() -> list[Seen]:
    """All that have none, examined once."""
    return [one for _, one in sweep([kind for kind in tiny.architectures() if tiny.without_sdpa(kind)])]


@functools.cache
def recorded() -> list[Seen]:
    """Those of which there is a recording."""
    return [one for one in seen() if one.status in ("recorded", "in part")]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nearly_all_that_build_are_recorded():
    able = [one for one in seen() if one.status in ABLE]
    assert [one for one in able if one.status == "failed"] == []
    assert [one.kind for one in able if one.status == "missed"] == []
    assert [name for one in able for name in one.missed if not reason_of(name)] == []
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
    assert one.ablated.gap is not None
    assert one.ablated.gap <= CLOSE
    assert not one.ablated.note


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ablation_is_zeroing_by_hand():
    every = [one for one in (*recorded(), *seen_without()) if one.ablated.gap is not None]
    assert {one.kind for one in every if not one.ablated.gap <= CLOSE} <= MIXED.keys()
    assert len(every) >= 450


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_those_without_sdpa_are_left_as_they_are_and_recorded_or_listed():
    ran = [one for one in seen_without() if one.status in ("recorded", "in part", "missed", "no attention", "failed")]
    assert [one.kind for one in ran if not one.same or one.status == "failed"] == []
    assert [name for one in ran for name in one.missed if not reason_of(name)] == []
    exact = [one.kind for one in ran if one.status == "recorded" and one.eager is not None and one.eager <= CLOSE]
    assert len(exact) >= LEAST_WITHOUT


# Written out by hand: with ALiBi inside the product, disentangled, with positions that a second product
# gives, in blocks, over a sequence that is a picture.
BY_HAND = ("bloom", "deberta-v2", "xlnet", "prophetnet", "longt5", "vitdet")


@pytest.mark.parametrize("kind", BY_HAND)
def test_some_of_those_without_sdpa(kind):
    hs.hf.register()
    one = examine(kind)
    assert (one.status, one.how, one.same, one.missed, one.note) == ("recorded", "eager", True, (), "")
    assert one.eager is not None
    assert one.eager <= CLOSE
    assert agrees(one.agreed)


def test_attention_that_is_not_recorded_is_listed_with_its_reason():
    one = examine("mra")
    assert (one.status, one.same, one.missed) == ("missed", True, ("MraSelfAttention",))
    assert "sparse: blocks at several resolutions" in without([one])


def test_a_model_without_attention_is_not_missed():
    assert examine("muse_spark_audio").status == "no attention"


def test_what_does_not_run_counts_and_is_on_the_page():
    """A model that builds and that no input fits is one of those that should be recorded."""
    seen = [Seen("good", "recorded"), Seen("mute", "no input", note="wants a session"), Seen("still", "no attention")]
    page = table(seen)
    assert "Of 3 architectures, 2 can be built" in page
    assert "**1 of them (50.0%) are recorded**" in page
    assert "| mute | wants a session |" in page


def agrees(agreed: Agreement) -> bool:
    """Whether what could be compared is equal."""
    return (
        (agreed.outputs or 0.0) <= CLOSE
        and (agreed.gradients or 0.0) <= CLOSE_GRADIENTS
        and agreed.tokens is not False
        and "on headscope" not in agreed.note
    )
