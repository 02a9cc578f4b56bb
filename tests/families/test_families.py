"""Every architecture of transformers: those that run are recorded, equal their eager weights, and run on "
""headscope"."""

import functools

import pytest

import headscope as hs
from tests.families import tiny
from tests.families.agree import Agreement
from tests.families.examine import CLOSE, CLOSE_GRADIENTS, Seen, examine

pytestmark = pytest.mark.filterwarnings("ignore")


@functools.cache
def seen() -> list[Seen]:
    """All architectures, examined once."""
    hs.hf.register()
    return [examine(kind) for kind in tiny.architectures()]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_nearly_all_that_run_are_recorded():
    ran = [one for one in seen() if one.status in ("recorded", "missed")]
    recorded = [one for one in ran if one.status == "recorded"]
    assert len(recorded) >= 120
    assert len(recorded) >= 0.95 * len(ran)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_outputs_are_the_same_bits():
    assert [one.kind for one in seen() if not one.same] == []


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_eager_weights_are_those_recorded():
    assert [one for one in seen() if one.eager is not None and one.eager > CLOSE] == []


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_headscope_agrees_with_eager():
    assert [one for one in seen() if not agrees(one.agreed)] == []
    assert sum(one.agreed.tokens is True for one in seen()) >= 100
    assert sum(one.agreed.outputs is not None for one in seen()) >= 0.95 * sum(one.layers > 0 for one in seen())


# One of each kind: encoder, decoder (grouped, windowed, with experts, with positions that are biases), encoder-decoder,
# pictures, sound, both with text.
SOME = ("bert", "llama", "mistral", "gpt_neox", "mixtral", "mpt", "t5", "bart", "whisper", "vit", "clip", "gemma3_text")


@pytest.mark.parametrize("kind", SOME)
def test_some_of_them(kind):
    hs.hf.register()
    one = examine(kind)
    if one.status == "no sdpa":
        pytest.skip("no scaled dot-product attention in this version of transformers")
    assert one.status == "recorded"
    assert one.same
    assert one.eager is not None
    assert one.eager <= CLOSE
    assert agrees(one.agreed)
    assert one.agreed.outputs is not None


def agrees(agreed: Agreement) -> bool:
    """Whether what could be compared is equal."""
    return (
        (agreed.outputs or 0.0) <= CLOSE and (agreed.gradients or 0.0) <= CLOSE_GRADIENTS and agreed.tokens is not False
    )
