"""Left-padded = right-padded = with holes = alone = packed, for every measure, statistic and finding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import headscope as hs
from headscope.attention.masks.runs import from_dense
from headscope.attention.request import Request
from headscope.look.findings import patterns
from headscope.look.measures import MEASURES, measures
from headscope.look.sequences import aligned, sequences_of
from tests.look.oracle import neighbourhoods

WORDS = ["[CLS]", "a", "b", "a", "b", "c", "a", "b", "c", ".", "d"]
N, H, G, D = len(WORDS), 4, 2, 7
SPECIAL = [True] + [False] * (N - 1)
ARRANGEMENTS = ("right", "left", "holes", "left, padding sees all", "packed", "packed and padded")
near = {"rtol": 1e-9, "atol": 1e-9}


def text(seed=0):
    """Queries and keys of one text with an even mixture of sharp and broad heads."""
    g = torch.Generator().manual_seed(seed)
    q, k = torch.randn(1, H, N, D, generator=g).double(), torch.randn(1, G, N, D, generator=g).double()
    sharp = torch.tensor([0.01, 1.0, 2.0, 4.0])[:, None, None]
    return q * sharp, k


def arranged(how, *, causal, seed=0):
    """The same text in a longer batch item: the call and its axis, and the places of each copy of the text."""
    q, k = text(seed)
    places, length, marks = [torch.arange(N)], N + 3, False
    if how == "left":
        places = [torch.arange(N) + 3]
    elif how == "holes":
        places = [torch.tensor([0, 1, 3, 4, 5, 6, 8, 9, 10, 12, 13])]
    elif how == "left, padding sees all":
        places, marks = [torch.arange(N) + 3], True
    elif how.startswith("packed"):
        places = [torch.arange(N), torch.arange(N) + N]
        length = 2 * N + (4 if "padded" in how else 0)
    wide_q, wide_k = torch.randn(1, H, length, D).double(), torch.randn(1, G, length, D).double()
    allowed = torch.zeros(length, length, dtype=torch.bool)
    labels, special, padding = ["[PAD]"] * length, [True] * length, [True] * length
    for place in places:
        wide_q[:, :, place], wide_k[:, :, place] = q, k
        allowed[place[:, None], place] = torch.ones(N, N).tril().bool() if causal else True
        if how in ("right", "holes") and not causal:
            allowed[:, place] = True  # padding looks at the text, as in BERT
        for i, p in enumerate(place.tolist()):
            labels[p], special[p], padding[p] = WORDS[i], SPECIAL[i], False
    if marks:
        allowed[:3] = True
    axis = hs.Axis.tokens(labels, special=special, padding=padding if marks else None)
    return Request(wide_q, wide_k, wide_k, hs.dense(allowed)), axis, places


def alone(*, causal, seed=0):
    q, k = text(seed)
    return Request(q, k, k, hs.causal() if causal else None), hs.Axis.tokens(WORDS, special=SPECIAL)


def head_of(request, axis, h):
    return hs.Head(request.q[0, h], request.k[0, h // (H // G)], mask=request.mask, queries=axis)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("how", ARRANGEMENTS)
def test_every_measure(how, causal):
    request, axis, places = arranged(how, causal=causal)
    found, expected = measures(request, axis, axis), measures(*alone(causal=causal)[:1], *[alone(causal=causal)[1]] * 2)
    assert list(found) == list(expected) == list(MEASURES)
    for name, (sums, count) in found.items():
        torch.testing.assert_close(sums / len(places), expected[name].sums, msg=name, **near)
        assert count == len(places) * expected[name].queries, name


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("how", ARRANGEMENTS)
def test_every_statistic_of_a_head(how, causal):
    request, axis, places = arranged(how, causal=causal)
    one, its_axis = alone(causal=causal)
    for h in range(H):
        found, expected = head_of(request, axis, h), head_of(one, its_axis, h)
        torch.testing.assert_close(found.offsets(5), expected.offsets(5), **near)
        assert found.confidence() == pytest.approx(expected.confidence(), rel=1e-9)
        for place in places:
            for name in ("entropy", "concentration", "received", "special", "duplicates", "induction"):
                torch.testing.assert_close(getattr(found, name)()[place], getattr(expected, name)(), msg=name, **near)
            torch.testing.assert_close(found.top(2).weights[place], expected.top(2).weights, **near)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("how", ARRANGEMENTS)
def test_every_finding(how, causal):
    def facts(request, axis):
        found = patterns((0, h, head_of(request, axis, h)) for h in range(H))
        numbers = ("mean weight", "entropy", "weight", "distance", "offset", "stability")
        return {
            (f.head, f.kind, round(f.score, 6), *(round(f.evidence[n], 6) for n in numbers if n in f.evidence))
            for f in found
            if f.kind != "pair" or "packed" not in how  # a head's two best pairs are those of one text twice
        }

    request, axis, _ = arranged(how, causal=causal, seed=3)
    expected = facts(*alone(causal=causal, seed=3))
    assert facts(request, axis) == expected
    assert expected


@pytest.mark.parametrize("how", [how for how in ARRANGEMENTS if "sees all" not in how])
def test_offsets_of_plain_tensors(how):
    request, _, _ = arranged(how, causal=True)
    one, _ = alone(causal=True)
    found = hs.look.offsets(request.q, request.k, 4, mask=request.mask)
    torch.testing.assert_close(found, hs.look.offsets(one.q, one.k, 4, mask=one.mask), **near)


def test_two_documents_add_up():
    parts = [alone(causal=True, seed=seed) for seed in (1, 2)]
    q, k = (torch.cat([getattr(part[0], name) for part in parts], 2) for name in "qk")
    axis = hs.Axis.tokens(WORDS * 2, special=SPECIAL * 2)
    found = measures(Request(q, k, k, hs.causal() & hs.documents([N, N])), axis, axis)
    first, second = (measures(request, one, one) for request, one in parts)
    for name, (sums, count) in found.items():
        torch.testing.assert_close(sums, first[name].sums + second[name].sums, msg=name, **near)
        assert count == first[name].queries + second[name].queries


@pytest.mark.parametrize("extra", ["dense bias", "alibi", "softcap", "sinks"])
@pytest.mark.parametrize("how", ["left", "holes"])
def test_with_all_that_changes_scores(how, extra):
    request, axis, (place,) = arranged(how, causal=True)
    one, its_axis = alone(causal=True)
    whole = torch.randn(1, H, request.q.shape[2], request.q.shape[2]).double()
    options = {"softcap": 1.5} if extra == "softcap" else {"sinks": torch.arange(H).double()}
    wide = options
    if extra == "dense bias":
        wide, options = {"bias": hs.dense_bias(whole)}, {"bias": hs.dense_bias(whole[:, :, place][..., place])}
    if extra == "alibi":
        # Distances are those of the call: with holes in the text some are longer than alone.
        values = hs.alibi(H).block(slice(0, len(whole[0, 0])), 0, len(whole[0, 0]), *whole.shape[2:]).double()
        wide, options = {"bias": hs.alibi(H)}, {"bias": hs.dense_bias(values[:, :, place][..., place])}
    found = measures(Request(request.q, request.k, request.k, request.mask, **wide), axis, axis)
    expected = measures(Request(one.q, one.k, one.k, one.mask, **options), its_axis, its_axis)
    for name, mean in found.items():
        torch.testing.assert_close(mean.sums, expected[name].sums, msg=name, **near)


def test_between_two_texts_padding_of_both_is_left_out():
    q, k = text()
    wide_q, wide_k = torch.randn(1, H, N + 2, D).double(), torch.randn(1, G, N + 4, D).double()
    wide_q[:, :, :N], wide_k[:, :, 4:] = q, k
    allowed = torch.zeros(N + 2, N + 4, dtype=torch.bool)
    allowed[:, 4:] = True
    asking = hs.Axis.tokens([*WORDS, "[PAD]", "[PAD]"], padding=[False] * N + [True] * 2)
    asked = hs.Axis.tokens(["[PAD]"] * 4 + [word + "'" for word in WORDS], special=[True] * 4 + SPECIAL)
    found = measures(Request(wide_q, wide_k, wide_k, hs.dense(allowed)), asking, asked)
    expected = measures(Request(q, k, k), hs.Axis.tokens(WORDS), asked.select(range(4, N + 4)))
    assert set(found) == {"entropy", "concentration", "confidence", "first", "special"}
    for name, mean in found.items():
        torch.testing.assert_close(mean.sums, expected[name].sums, msg=name, **near)
        assert mean.queries == N


def test_neighbours_of_joint_attention_are_those_of_their_segment():
    q = k = torch.eye(6)[None, None] * 10
    axis = hs.Axis.segments(text=hs.Axis.tokens(["a", "b"]), picture=hs.Axis.patches(2, 2))
    found = measures(Request(q, k.roll(1, 2), k), axis, axis)
    # Every query looks at the key after it; the last of the text has none, nor has the last patch.
    assert found["next"].queries == 4
    assert float(found["next"].sums) == pytest.approx(4.0, abs=1e-4)
    assert hs.Head(q[0, 0], k.roll(1, 2)[0, 0], queries=axis).offsets(1)[2] == pytest.approx(1.0, abs=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(0, 4), st.sampled_from([0.1, 0.3, 0.7]))
@settings(max_examples=60, deadline=None)
def test_sequences_are_what_is_connected(seed, queries, more, density):
    keys = queries + more
    allowed = torch.rand(queries, keys, generator=torch.Generator().manual_seed(seed)) < density
    found = aligned(from_dense(allowed[None, None]), queries, keys)
    expected = neighbourhoods(allowed.tolist())
    assert sorted(found.rows.tolist()) == sorted(expected)
    lines = {}
    for row, number, own in zip(found.rows.tolist(), found.row_numbers.tolist(), found.own.tolist(), strict=True):
        line = found.keys[found.key_numbers == number].tolist()
        lines[row] = line, line.index(int(found.keys[own]))
    assert lines == expected


def test_a_call_without_padding_is_used_as_it_is():
    request, axis = alone(causal=True)
    found = sequences_of(request.runs(), axis, axis)
    assert found.whole
    assert found.request(request) is request


def test_what_is_asked_of_many_sequences_stays_linear():
    """Queries that see only themselves are sequences of their own; 4096 of them are one call, not as many."""
    q, k = torch.randn(2, 1, 1, 4096, 8)
    found = measures(Request(q, k, k, hs.window(0)), hs.Axis.positions(4096), hs.Axis.positions(4096))
    assert float(found["self"].sums) == pytest.approx(4096)
    assert found["previous"].queries == 0
