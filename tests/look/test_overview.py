"""The one pass for findings, the table of heads and small pictures, beside all weights written out in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import headscope as hs
from headscope.attention.request import Request
from headscope.look import overview
from headscope.look.evidence import heaviest_pairs
from headscope.look.kernels import stream, tiles
from headscope.look.kernels.ask import Ask, Candidates
from headscope.look.kernels.picture_cells import seen_cells
from headscope.look.words import content_of, word_numbers
from headscope.recording.layer import Layer
from headscope.recording.recording import Recording
from headscope.view.page import document
from headscope.view.subject import Subject
from tests.look.oracle import K, Q, calls, extras, full, inputs, masks


def largest(weights, rows, columns):
    """The largest weight of each cell, by its definition."""
    q, k = weights.shape[-2:]
    rows, columns = min(rows, q), min(columns, k)
    cells = torch.zeros(*weights.shape[:-2], rows, columns, dtype=weights.dtype)
    for i in range(q):
        for j in range(k):
            at = (..., i * rows // q, j * columns // k)
            cells[at] = torch.maximum(cells[at], weights[..., i, j])
    return cells


@pytest.mark.parametrize(("block", "size"), [(tiles.CPU_BLOCK, (44, 44)), (300, (5, 7)), (300, (4, 1))])
@settings(max_examples=5, deadline=None)
@given(call=calls)
def test_pictures_and_candidates_of_every_call(block, size, call):
    groups, mask, extra = call
    q, k = inputs(groups)
    kwargs = {"mask": masks()[mask], **extras()[extra]}
    weights = full(q, k, **kwargs)[0]
    g = torch.Generator().manual_seed(3)
    keys, start = torch.rand(K, generator=g) < 0.7, torch.randint(0, K, (Q,), generator=g)
    among = Candidates(keys, start, start + torch.randint(0, 9, (Q,), generator=g))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "CPU_BLOCK", block)
        patch.setattr(tiles, "LEAST_ROWS", 3)
        seen = stream.stream(Request(q, k, k, **kwargs), Ask(entropy=True, peak=True, candidates=among, picture=size))
    j = torch.arange(K)
    out = ~keys | ((j >= among.start[:, None]) & (j < among.stop[:, None]))
    torch.testing.assert_close(seen.best.double(), weights.masked_fill(out, 0.0).amax(-1), rtol=2e-5, atol=1e-6)
    torch.testing.assert_close(seen.picture.double(), largest(weights, *size), rtol=2e-5, atol=1e-6)
    torch.testing.assert_close(seen.peak.double(), weights.amax(-1), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("mask", sorted(masks()))
def test_cells_that_are_seen(mask):
    q, k = inputs()
    head = hs.Head(q[1, 0], k[1, 0], mask=None if (m := masks()[mask]) is None else hs.dense(m.to_dense(Q, K)[-1:, :1]))
    runs = head.runs
    j = torch.arange(K)
    seen = ((j[:, None] >= runs.start[:, None]) & (j[:, None] < runs.stop[:, None])).any(-1)
    for size in ((5, 7), (Q, K), (44, 44)):
        torch.testing.assert_close(seen_cells(runs, size, K), largest(seen.double(), *size) > 0)


@pytest.mark.parametrize("queries", [0, 3])
def test_no_keys_and_no_queries(queries):
    q, k = torch.zeros(1, 2, queries, 4), torch.zeros(1, 1, 0 if queries else 5, 4)
    none = torch.zeros(queries, dtype=torch.int64)
    ask = Ask(candidates=Candidates(torch.zeros(k.shape[2], dtype=torch.bool), none, none), picture=(4, 4))
    seen = stream.stream(Request(q, k, k), ask)
    assert seen.best.tolist() == [[[0.0] * queries] * 2]
    assert not seen.picture.numel()


LABELS = st.lists(st.sampled_from(["[CLS]", "Ġa", "b", ",", "Ġc", "d"]), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(labels=LABELS, cached=st.integers(0, 20), documents=st.booleans())
def test_candidates_are_content_neither_near_nor_of_the_same_word(labels, cached, documents):
    keys = hs.Axis.tokens(labels, special=[label == "[CLS]" for label in labels])
    first = min(cached, len(labels) - 1)
    queries = keys.select(range(first, len(labels)))
    mask = None if not documents or len(labels) < 2 or first else hs.documents([1, len(labels) - 1])
    head = hs.Head(
        torch.zeros(len(labels) - first, 2), torch.zeros(len(labels), 2), mask=mask, queries=queries, keys=keys
    )
    found, words = head.sequences, word_numbers(keys)
    among = overview.candidates(keys, found)
    for row, own in enumerate((found.rows + first).tolist()):
        for column, key in enumerate(found.keys.tolist()):
            same = bool(found.row_numbers[row] == found.key_numbers[column])
            near = abs(int(found.own[row]) - column) <= 1 or words[own] == words[key]
            expected = bool(content_of(keys)[key]) and not near
            allowed = bool(among.keys[column]) and not among.start[row] <= column < among.stop[row]
            assert allowed == expected or not same  # what is in another sequence has no weight


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_those_of_all_weights(seed):
    """With more queries than are looked at one by one; the weights are `head.weights`, to the bit."""
    g = torch.Generator().manual_seed(seed)
    axis = hs.Axis.tokens([("Ġ" if i % 3 else "") + "abcde,"[i % 6] for i in range(211)])
    head = hs.Head(*(3 * torch.randn(2, 211, 7, generator=g)), mask=hs.causal() if seed % 2 else None, queries=axis)
    every, words, content, i = head.weights(), word_numbers(axis), content_of(axis), torch.arange(211)
    out = ((i[:, None] - i).abs() <= 1) | (words[:, None] == words) | ~content | ~content[:, None]
    best = every.masked_fill(out, 0.0).topk(2)
    rows = best.values[:, 0].argsort(descending=True, stable=True)[:2]
    found = heaviest_pairs(head, head.sequences, head.overview.best[0, 0])
    assert [(p.query, p.key, p.next_key) for p in found] == [(int(r), *best.indices[r].tolist()) for r in rows]
    torch.testing.assert_close(torch.tensor([p.weight for p in found]), best.values[rows, 0])
    torch.testing.assert_close(torch.tensor([p.next_weight for p in found]), best.values[rows, 1])


def recorded(heads=3, n=97):
    g = torch.Generator().manual_seed(5)
    q, k = torch.randn(2, 1, heads, n, 5, generator=g)
    axis = hs.Axis.tokens([f"w{i}" for i in range(n)])
    return Recording([Layer("a", "self", q, k, None, None, 0.5, queries=[axis], keys=[axis])])


def test_a_page_makes_one_pass(monkeypatch):
    passes, take = [], stream.Pass
    monkeypatch.setattr(stream, "Pass", lambda *given: passes.append(given) or take(*given))
    document(Subject("page", recorded()))
    assert len(passes) == 1


def test_a_head_of_a_recording_has_what_it_has_alone():
    x = recorded()
    for _, row, head in x:
        own = hs.Head(head.q, head.k, scale=head.scale, queries=head.queries).overview
        for name in ("lse", "entropy", "concentration", "peak", "received", "best", "picture"):
            torch.testing.assert_close(getattr(head.overview, name), getattr(own, name), rtol=1e-5, atol=1e-6)
            assert torch.equal(getattr(head.overview, name)[0, 0], getattr(x.layers[0].overview(0), name)[0, row])


def test_what_rests_on_the_axes_is_found_again_when_they_change():
    x = recorded()
    before = x.layers[0].overview(0)
    assert x.layers[0].overview(0) is before
    x.tokens([","] * 97)
    assert x.layers[0].known_overview(0) is None
    assert not x.layers[0].overview(0).best.any()


def test_the_table_is_the_same_before_and_after_the_pass():
    x, y = recorded(), recorded()
    y.patterns()
    for one, other in zip(x.heads(), y.heads(), strict=True):
        assert one == pytest.approx(other, rel=1e-6, nan_ok=True)


def test_pictures_are_of_the_whole_call():
    axis = hs.Axis.tokens(["a", "b", "c"], special=[False, False, True])
    head = hs.Head(torch.zeros(3, 2), torch.zeros(3, 2), mask=hs.padding([2], [2]), queries=axis)
    assert head.overview.picture is None
    assert head.overview.best.shape == (1, 1, 2)
