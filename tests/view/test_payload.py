"""What travels in the page: its numbers, its sizes, and that it is small."""

import json

import numpy as np
import pytest
import torch

from headscope import Axis, Head, alibi, causal, dense_bias
from headscope.errors import LookError
from headscope.recording.recording import Recording
from headscope.view.payload import decoded, payload
from headscope.view.subject import Subject
from tests.view.samples import MALICIOUS, layer, recording, words


def made(x, **options):
    subject = Subject("page", x)
    return payload(subject, subject.start(**options))


def test_q_and_k_come_back_from_their_chunk():
    one = layer(b=2, h=6, g=3, q=5, k=7, d=4)
    content = made(Recording([one]))
    entry = content.data["layers"][0]
    assert entry["wide"] == [False] * 3
    assert len(content.chunks) == 2
    for item in range(2):
        numbers = decoded(content.chunks[item], "<f2").astype(np.float64)
        groups = np.split(numbers, 3)
        q = np.stack([group[: 2 * 5 * 4].reshape(2, 5, 4) for group in groups]).reshape(6, 5, 4)
        k = np.stack([group[2 * 5 * 4 :].reshape(7, 4) for group in groups]).repeat(2, axis=0)
        scores = np.einsum("hqd,hkd->hqk", q, k) * np.array(entry["factors"][item])[:, None, None]
        weights = torch.tensor(scores).softmax(-1)
        exact = torch.stack([one.head(head, item).weights() for head in range(6)]).double()
        torch.testing.assert_close(weights, exact, atol=7e-4, rtol=0)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_sixteen_bits_never_overflow(size):
    one = layer(q=23, k=29, size=0.7)
    one.q, one.k = one.q * size, one.k / size
    content = made(Recording([one]))
    assert np.isfinite(decoded(content.chunks[0], "<f2")).all()
    assert np.abs(decoded(content.chunks[0], "<f2")).max() > 2**12


def test_runs_biases_and_axes_that_are_the_same_travel_once():
    x = recording(layers=5, d=3, mask=causal(), bias=alibi(3))
    content = made(x)
    assert len(content.data["runs"]) == len(content.data["axes"]) == 1
    assert len(content.data["biases"]) == 2  # the second is that of the rollout
    assert [entry["runs"] for entry in content.data["layers"]] == [0] * 5 + [None]
    assert content.data["biases"][0]["form"] == "offset"
    runs = decoded(content.data["runs"][0]["data"], "<u2").reshape(11, 1, 2)
    assert runs[:, 0, 1].tolist() == list(range(1, 12))


def test_a_dense_bias_travels_in_sixteen_bits_and_in_thirty_two_where_it_must():
    small, large = torch.randn(1, 3, 11, 11), torch.randn(1, 3, 11, 11) * 3 + 4000.0
    assert made(Recording([layer(d=3, bias=dense_bias(small))])).data["biases"][0]["bits"] == 16
    assert made(Recording([layer(d=3, bias=dense_bias(large))])).data["biases"][0]["bits"] == 32


def test_the_scores_of_a_short_text_travel_instead_of_more_numbers_in_q_and_k():
    one = layer(q=5, k=11, d=32, mask=causal(), bias=alibi(3), softcap=5.0)
    content = made(Recording([one]))
    entry = content.data["layers"][0]
    assert (entry["form"], entry["bias"], entry["softcap"]) == ("scores", None, None)
    scores = torch.tensor(decoded(content.chunks[0], "<f2").astype(np.float64)).view(3, 5, 11)
    for head in range(3):
        exact = one.head(head).weights().double()
        found = scores[head].masked_fill(exact == 0, -torch.inf).softmax(-1)
        torch.testing.assert_close(found, exact, atol=3e-4, rtol=0)
    assert made(Recording([layer(q=11, k=11, d=3)])).data["layers"][0]["form"] == "q and k"


def test_the_lengths_of_values_travel_where_there_are_values():
    one = layer(b=2, h=6, g=2, q=5, k=7)
    one.v = torch.randn(2, 2, 7, 3)
    content = made(Recording([one]))
    found = decoded(content.data["layers"][0]["lengths"], "<f2").reshape(2, 2, 7)
    np.testing.assert_allclose(found, one.v.norm(dim=-1).numpy(), rtol=1e-3)
    assert made(Recording([layer()])).data["layers"][0]["lengths"] is None


def test_heads_that_need_thirty_two_bits_get_them_and_the_others_do_not():
    one = layer(h=4, g=2, q=31, k=31, d=16, seed=2)
    one.q[:, 2:] *= 12.0
    one.k[:, 1:] *= 12.0
    content = made(Recording([one]))
    assert content.data["layers"][0]["wide"] == [False, True]
    assert 0 < content.error <= 7e-4


def test_the_size_for_sixteen_and_for_512_tokens():
    from headscope.view.page import assemble

    for tokens, most in ((16, 0.6e6), (512, 8e6)):
        axis = words(tokens)
        layers = [layer(h=12, g=12, q=tokens, k=tokens, d=32, queries=axis, keys=axis, seed=n) for n in range(6)]
        subject = Subject("page", Recording(layers), findings=False)
        assert len(assemble(payload(subject, subject.start())).encode()) < most


def test_findings_travel_with_the_place_of_their_head():
    eye = 20 * torch.eye(8)
    one = layer(h=2, g=2, q=8, k=8, d=8, head_numbers=(4, 9), number=7, size=0.1)
    one.q[0, 1], one.k[0, 1] = eye, torch.eye(8).roll(-1, 0)
    content = made(Recording([one]))
    heads = content.data["heads"]
    kind, text, query, key = heads["said"][0][1][0]
    assert kind == "previous"
    assert text.startswith("looks at the previous token")
    assert (query, key) == (None, None)
    assert sorted(heads["order"]) == [[0, 0], [0, 1]]
    assert heads["measures"]["previous"][0][1] == pytest.approx(1.0, abs=1e-2)
    assert (content.data["layers"][0]["number"], content.data["layers"][0]["heads"]) == (7, [4, 9])


def test_json_ends_no_script_element():
    from headscope.view.page import as_json

    axis = Axis.tokens([MALICIOUS, "<!--", "]]>"])
    content = made(Head(torch.randn(3, 2), torch.randn(3, 2), queries=axis))
    text = as_json(content.data)
    assert "<" not in text
    assert json.loads(text)["axes"][0]["labels"][0] == MALICIOUS


def test_the_source_of_an_axis_says_no_folder():
    axis = Axis.frames(3, 0.02, source="/home/somebody/secret/voice.wav")
    content = made(Head(torch.randn(3, 2), torch.randn(3, 2), queries=axis))
    assert content.data["axes"][0]["source"] == "voice.wav"


def test_a_head_with_too_many_weights_is_refused():
    q = torch.randn(1, 1, 4099, 2)
    one = layer(h=1, g=1, q=2, k=2, d=2)
    one.q = one.k = q
    one.queries = one.keys = [Axis.positions(4099)]
    subject = Subject("page", Recording([one]), findings=False)
    with pytest.raises(LookError, match=r"layer 0 has 4099 x 4099 weights in each head and one page holds 4096 x 4096"):
        payload(subject, subject.start())


def test_what_is_neither_a_recording_nor_a_head_is_refused():
    with pytest.raises(LookError, match=r"given a dict; give a recording, or one head of it"):
        Subject("page", {})
    with pytest.raises(LookError, match=r"the recording has no layers; run the model"):
        Subject("page", Recording())
    with pytest.raises(LookError, match=r"has 1 items, 3 heads, 0 queries and 11 keys; there is nothing to see"):
        Subject("page", Recording([layer(q=0, queries=Axis.positions(0), keys=Axis.positions(11))]))


def test_the_first_head_is_the_one_that_was_asked_for():
    x = Recording([layer(number=3, head_numbers=(2, 5, 8)), layer(number=9)])
    assert Subject("page", x).start(3, 8)[:2] == (0, 2)
    assert Subject("page", x).start(9, None)[0] == 1
    with pytest.raises(LookError, match=r"layer 1 does not exist"):
        Subject("page", x).start(1, 0)
    with pytest.raises(LookError, match=r"head 3 of layer 3 does not exist"):
        Subject("page", x).start(3, 3)
