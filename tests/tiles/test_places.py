"""Where to look: what was put into a head is found, with its exact place."""

import pytest
import torch

import headscope as hs
from headscope.tiles import filling
from headscope.tiles.head_map import HeadMap
from headscope.tiles.places import places

N = 4421


def head(kind: str) -> hs.Head:
    """A head that does one thing: queries and keys are codes of positions, and a match scores 12."""
    seeded = torch.Generator().manual_seed(1)
    codes = torch.nn.functional.normalize(torch.randn(2 * N, 48, generator=seeded), dim=1)
    q = k = codes[:N]
    mask = hs.causal()
    if kind == "stripe":
        q = torch.cat([codes[N : N + 3000], codes[3000 - 1733 : N - 1733]])  # from 3000 on each attends 1733 back
    elif kind == "previous":
        q = torch.cat([codes[:1], codes[: N - 1]])
    elif kind == "column":
        q = 0.3 * codes[N:] + codes[1234]
    elif kind == "pair":
        q = codes[N:].clone()
        q[4000] = codes[777]
    elif kind == "block":
        q, mask = codes[N:], hs.documents([1500, 1200, N - 2700]) & hs.causal()
    elif kind == "change":
        q = torch.cat([codes[N : N + 2200], codes[2200:N]])
    return hs.Head(14 * q, k, mask=mask, scale=1.0, queries=hs.Axis.tokens([f"t{i}" for i in range(N)]))


@pytest.fixture
def found(tmp_path, request):
    one = HeadMap(head(request.param), tmp_path / "map")
    assert places(one) == {"status": "not yet", "places": []}
    filling.fill(one.call, one.strips)
    answer = places(one)
    assert answer["status"] == "exact"
    for entry in answer["places"]:
        top, left, bottom, right = entry["window"]
        assert 0 <= top < bottom <= N
        assert 0 <= left < right <= N
        assert 0 <= entry["z"] <= one.shape.top
    return one, request.param, [entry for entry in answer["places"] if entry["kind"] == request.param]


@pytest.mark.parametrize("found", ["pair", "column", "stripe", "block", "change"], indirect=True)
def test_what_a_head_does_is_found(found):
    one, kind, entries = found
    first = entries[0]
    if kind == "stripe":
        assert first["offset"] == 1733
        weights = torch.stack([one.row(i)[i - 1733] for i in range(2048, N, 50)])
        assert first["score"] == pytest.approx(float(weights.mean()), rel=0.2)
        assert "1733 positions back" in first["text"]
    elif kind == "column":
        assert first["key"] == 1234
        assert len(entries) == 1
    elif kind == "pair":
        assert (first["query"], first["key"]) == (4000, 777)
        assert first["score"] == pytest.approx(float(one.head.weights(4000, 777)), rel=1e-4)
        assert first["text"] == "“t4000” → “t777”, 3223 apart"
    elif kind == "block":
        edges = sorted({edge for entry in entries for edge in entry["window"][::2]})
        for want, have in zip([0, 1500, 2700, N], edges, strict=True):
            assert abs(want - have) <= 16
        assert first["score"] == pytest.approx(1.0, abs=0.02)
    else:
        assert abs(first["query"] - 2200) <= 32


def test_the_position_before_is_a_stripe_of_its_own(tmp_path):
    one = HeadMap(head("previous"), tmp_path / "map")
    filling.fill(one.call, one.strips)
    first = next(entry for entry in places(one)["places"] if entry["kind"] == "stripe")
    assert first["offset"] == 1
    assert "the position before" in first["text"]


def test_a_head_that_does_nothing_has_no_places_but_pairs(tmp_path):
    made = torch.Generator().manual_seed(3)
    q, k = (torch.randn(3001, 5, generator=made) for _ in range(2))
    one = HeadMap(hs.Head(q, k), tmp_path / "map")
    filling.fill(one.call, one.strips)
    assert {entry["kind"] for entry in places(one)["places"]} <= {"pair"}
