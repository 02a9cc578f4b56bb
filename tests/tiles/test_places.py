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
        assert (first["offset"], first["window"]) == (1733, [3000, 3000 - 1733, N, N - 1733])
        weights = torch.stack([one.row(i)[i - 1733] for i in range(3000, N, 50)])
        assert first["score"] == pytest.approx(float(weights.mean()), rel=0.02)
        assert first["text"].startswith("1733 positions back from “t3000t3001t3002t3003")
        assert first["text"].endswith(f"on: 0.98 of the weight, in the mean of queries 3000 to {N - 1}")
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


# Where a passage first stands, where its copy begins, and how long it is; the last one stands there three times.
REPEATS = [(97, 2511, 353), (1201, 4507, 211), (701, 1501, 307), (701, 3307, 307), (1501, 3307, 307)]


def text_with_repeats(count: int) -> torch.Tensor:
    """Tokens of which each stands in the text once, but for those of the repeats."""
    ids = torch.randperm(count, generator=torch.Generator().manual_seed(4))
    for source, target, size in REPEATS:
        ids[target : target + size] = ids[source : source + size]
    return ids


def induction_head(ids: torch.Tensor) -> hs.Head:
    """Every token attends to those that came after an equal one before it, in equal parts."""
    codes = torch.nn.functional.normalize(torch.randn(len(ids), 64, generator=torch.Generator().manual_seed(6)), dim=1)
    before = torch.cat([torch.zeros(1, 64), codes[ids[:-1]]])
    labels = hs.Axis.tokens([f" w{token}" for token in ids.tolist()])
    return hs.Head(30 * codes[ids], before, mask=hs.causal(), scale=1.0, queries=labels)


def test_the_places_of_a_text_with_repeats_are_those_of_the_repeats(tmp_path):
    ids = text_with_repeats(5003)
    one = HeadMap(induction_head(ids), tmp_path / "map")
    filling.fill(one.call, one.strips)
    found = [entry for entry in places(one)["places"] if entry["kind"] == "stripe"]
    wanted = {
        (target - source - 1, target, target + size): 0.5 if target == 3307 else 1.0 for source, target, size in REPEATS
    }
    assert {(entry["offset"], *entry["window"][::2]) for entry in found} == set(wanted)
    for entry in found:
        top, left, bottom, right = entry["window"]
        assert (top - left, bottom - right) == (entry["offset"], entry["offset"])
        assert entry["score"] == pytest.approx(wanted[entry["offset"], top, bottom], abs=0.02)
        assert f"{top - left} positions back from “w{ids[top]} w{ids[top + 1]} " in entry["text"]
    weight = [entry["score"] * (entry["window"][2] - entry["window"][0]) for entry in found]
    assert weight == sorted(weight, reverse=True)


def test_each_strip_is_read_once_however_often_somebody_asks(tmp_path, monkeypatch):
    one = HeadMap(head("stripe"), tmp_path / "map")
    filling.fill_one(one.call, one.strips)
    first, read = places(one), []
    level = one.strips.level
    monkeypatch.setattr(
        one.strips, "level", lambda strip, z, *where: (read.append((strip, z)), level(strip, z, *where))[1]
    )
    assert (first["status"], places(one), read) == ("partial", first, [])
    filling.fill(one.call, one.strips)
    assert places(one)["status"] == "exact"
    assert sorted(strip for strip, z in read if z == one.shape.base) == [1, 2]


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
