"""The levels of a map on disk: exact, resumable, shared between processes; and the estimate before they are there."""

import math
import os
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import headscope as hs
from headscope.errors import LookError
from headscope.tiles import codes, filling, strips
from headscope.tiles.background import Filler
from headscope.tiles.head_map import EMPTY, ESTIMATE, EXACT, NOT_YET, HeadMap
from headscope.tiles.places import places
from headscope.tiles.sample import estimate
from headscope.tiles.strip_file import Shape
from headscope.tiles.strips import Strips

N = 1709
MASKS = {
    "none": lambda: None,
    "causal": hs.causal,
    "window": lambda: hs.window(97),
    "hole": lambda: hs.window(61) | hs.first(7),
}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Only the finest zoom is computed on request."""
    monkeypatch.setattr("headscope.tiles.strip_file.FINE", 0)


def made(folder, mask="causal", cells=1024, n=N, k=N):
    """A map of four strips, with a base of cells of two."""
    seeded = torch.Generator().manual_seed(5)
    q, keys = (1.5 * torch.randn(count, 7, generator=seeded) for count in (n, k))
    one = HeadMap(hs.Head(q, keys, mask=MASKS[mask]()), folder)
    one.shape = Shape(n, k, cells)
    one.strips = Strips(folder, one.shape)
    return one


@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 16]), st.floats(1e-9, 1e3))
def test_codes_keep_numbers_within_the_promised_error(seed, bits, top):
    seeded = torch.Generator().manual_seed(seed)
    values = torch.rand(13, 7, generator=seeded) ** 8 * top
    seen, known = (torch.rand(13, 7, generator=seeded) > 0.2 for _ in range(2))
    coded = codes.encode(values, seen, known, bits=bits)
    back, last = codes.decode(coded, bits=bits), 2**bits - 1
    assert torch.equal(back.isnan(), ~known)
    shown = seen & known
    error = (back - values)[shown].abs()
    budget = (values[shown] * coded.top).sqrt() / (last - 2) + coded.top / (4 * (last - 2) ** 2) + 1e-6 * values[shown]
    assert bool((error <= budget).all())
    assert torch.equal(codes.is_seen(coded, bits=bits) | ~known, seen | ~known)


def test_codes_of_nothing_but_zeros():
    coded = codes.encode(torch.zeros(3, 2), torch.ones(3, 2, dtype=torch.bool), bits=8)
    assert coded.top == 0
    assert codes.decode(coded, bits=8).tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize("mask", MASKS)
def test_every_tile_agrees_with_the_head(tmp_path, mask):
    one = made(tmp_path / "map", mask)
    filling.fill(one.call, one.strips)
    assert (one.shape.base, one.shape.top, one.shape.strips) == (1, 3, 4)
    for z in range(one.shape.top + 1):
        count = -(-N // (256 << z))
        for x, y in {(0, 0), (count - 1, count - 1), (0, count - 1), (count - 1, 0), (count // 2, count // 2)}:
            tile, exact = one.tile(z, x, y, 16), one.head.tile(z, x, y)
            assert (tile.rows, tile.columns) == tuple(exact.mean.shape)
            if tile.status == EMPTY:
                assert not exact.seen.any()
                continue
            assert (tile.status, tile.exact, tile.generation, tile.error) == (EXACT, tile.rows, 0, 0.0)
            for plane, numbers in ((tile.mean, exact.mean), (tile.max, exact.max)):
                torch.testing.assert_close(codes.decode(plane, bits=16), numbers, rtol=1e-4, atol=4e-5 * plane.top)
                assert torch.equal(codes.is_seen(plane, bits=16), exact.seen)


def test_statistics_come_from_the_pass(tmp_path):
    one = made(tmp_path / "map", k=1500, n=1709)
    everything = slice(0, one.shape.queries)
    assert one.known_lse(everything) is None
    filling.fill(one.call, one.strips)
    head = one.head
    torch.testing.assert_close(one.known_lse(everything), head.lse)
    torch.testing.assert_close(one.strips.statistic("entropy", everything), head.entropy(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.strips.statistic("peak", slice(300, 411)), head.weights().amax(1)[300:411])
    cells = torch.stack([part.mean() for part in head.received().double().split(1 << one.shape.base)])
    torch.testing.assert_close(one.strips.received, cells, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.row(1200), head.row(1200))
    torch.testing.assert_close(one.column(11), head.column(11))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("z", "x", "y"), [(0, 3, 1000), (1, 17, 401), (2, 40, 361), (3, 213, 213), (3, 200, 1)])
def test_a_cell_names_the_pair_that_holds_its_max(tmp_path, full, z, x, y):
    one = made(tmp_path / "map")
    if full:
        filling.fill(one.call, one.strips)
    cell = one.cell(z, x, y)
    W = one.head.weights(cell.queries, cell.keys)
    assert cell.masked == (not bool(W.any()))
    if not cell.exact:
        assert not full
        assert (cell.query, math.isnan(cell.mean)) == (None, True)
    elif not cell.masked:
        assert cell.mean == pytest.approx(float(W.mean()), rel=1e-4)
        assert cell.max == pytest.approx(float(W.max()), rel=1e-4)
        assert float(one.head.weights(cell.query, cell.key)) == pytest.approx(cell.max, rel=1e-4)


def test_a_cell_of_too_many_weights_is_answered_from_the_tiles(tmp_path, monkeypatch):
    one = made(tmp_path / "map", "none")
    filling.fill(one.call, one.strips)
    whole = one.cell(3, 100, 100)
    monkeypatch.setattr("headscope.tiles.head_map.MOST_IN_CELL", 63)
    monkeypatch.setattr("headscope.tiles.head_map.cells", None)
    cell = one.cell(3, 100, 100)
    assert (cell.query, cell.key, cell.exact, cell.masked) == (None, None, True, False)
    assert (cell.mean, cell.max) == (pytest.approx(whole.mean, rel=1e-3), pytest.approx(whole.max, rel=1e-3))


def test_a_map_fills_from_the_first_query_on_and_shows_what_is_there(tmp_path):
    one = made(tmp_path / "map", "none")
    z = one.shape.top
    assert one.tile(z, 0, 0, 16)[:1] == (NOT_YET,)
    assert one.generation == 0
    one.strips.write(0, first_strip(one))
    tile = one.tile(z, 0, 0, 16)
    there = one.shape.queries_of_strip >> z
    assert (tile.status, tile.exact, tile.generation) == (ESTIMATE, there, 1)
    shown = codes.decode(tile.mean, bits=16)
    assert not shown[:there].isnan().any()
    assert shown[there:].isnan().all()
    one.estimate = estimate(one.call, one.shape)
    tile = one.tile(z, 0, 0, 16)
    assert (tile.status, tile.exact, tile.generation) == (ESTIMATE, there, 2)
    assert not codes.decode(tile.mean, bits=16).isnan().any()
    assert tile.error > 0


def first_strip(one):
    from headscope.look.kernels.part import part
    from headscope.look.kernels.pool import pool

    cell = 1 << one.shape.base
    return pool(part(one.call, one.shape.rows(0)), cell, cell, entropy=True)


@pytest.mark.parametrize("mask", MASKS)
def test_an_estimate_is_as_wrong_as_it_says(tmp_path, mask):
    one = made(tmp_path / "map", mask)
    found = estimate(one.call, one.shape)
    whole = one.head.pyramid(1024)
    for z in range(found.first, one.shape.top + 1):
        exact, guess = whole.level(z), found.levels[z - found.first]
        wrong = float((guess.mean - exact.mean)[exact.seen].square().mean().sqrt())
        assert 0 < wrong < 1.3 * found.error(z, slice(None), slice(None))
        assert bool((guess.max <= exact.max * (1 + 1e-5)).all())
        assert bool((exact.seen | ~guess.seen).all())


def test_a_pass_goes_on_where_it_was_ended(tmp_path):
    one, calls = made(tmp_path / "map"), iter(range(9))
    with pytest.raises(StopIteration):
        filling.fill(one.call, one.strips, lambda: next(calls))
    again = made(tmp_path / "map")
    before = again.strips.count()
    assert 0 < before < again.shape.strips
    assert again.strips.rows_from_the_start() == before * again.shape.queries_of_strip
    filling.fill(again.call, again.strips)
    assert again.strips.rows_from_the_start() == N
    assert not list((tmp_path / "map").glob("*.lock"))


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_strip_is_made_again(tmp_path, damage):
    one = made(tmp_path / "map")
    filling.fill(one.call, one.strips)
    file = one.strips.path(0)
    content = file.read_bytes()
    file.write_bytes(
        {"cut": content[: len(content) // 2], "empty": b"", "other": one.strips.path(1).read_bytes()[:-9]}[damage]
    )
    again = made(tmp_path / "map")
    assert not again.strips.has(0)
    filling.fill(again.call, again.strips)
    assert file.read_bytes() == content


LIES = {
    "empty span": {"span": torch.zeros(0, dtype=torch.int64)},
    "span of numbers": {"span": torch.tensor([0.0, 4.0])},
    "span below": {"span": torch.tensor([-4, 4])},
    "span above": {"span": torch.tensor([0, 2**62])},
    "span turned": {"span": torch.tensor([8, 4])},
    "span in between": {"span": torch.tensor([1, 256])},
    "narrow span": {"span": torch.tensor([0, 4])},
    "no tops": {"tops": torch.zeros(0)},
    "statistic without an axis": {"entropy": torch.tensor(1.0)},
    "statistic of two axes": {"peak": torch.zeros(512, 1)},
    "whole statistic": {"lse": torch.zeros(512, dtype=torch.int64)},
    "short codes": {"mean.1": torch.zeros(1, 1, dtype=torch.uint16)},
    "wide codes": {"max.0": torch.zeros(256, 4096, dtype=torch.uint16)},
    "other codes": {"mean.0": torch.zeros(256, 256, dtype=torch.uint8)},
    "complex": {"received": torch.zeros(855, dtype=torch.complex64)},
    "missing": {"max.2": None},
}


def test_a_strip_that_no_pass_wrote_is_not_there(tmp_path):
    one = made(tmp_path / "map")
    one.strips.write(0, first_strip(one))
    file = one.strips.path(0)
    content = file.read_bytes()
    tensors = load_file(file)
    for name, lie in LIES.items():
        save_file({key: x for key, x in {**tensors, **lie}.items() if x is not None}, file)
        again = made(tmp_path / "map")
        assert not again.strips.has(0), name
        assert again.tile(again.shape.top, 0, 0, 16).status == NOT_YET
        assert places(again)["status"] == "not yet"
        assert not again.strips.received.any()
    file.write_bytes(content)
    assert again.strips.has(0)


def test_the_header_of_a_strip_is_checked_once_for_each_file(tmp_path, monkeypatch):
    one, found = made(tmp_path / "map"), []
    filling.fill(one.call, one.strips)
    real = strips.checked
    monkeypatch.setattr(strips, "checked", lambda *given: found.append(given[3]) or real(*given))
    one.strips = Strips(tmp_path / "map", one.shape)
    before = [one.tile(z, 0, 0, 16) for z in (1, 2, 3, 3)][-1]
    assert sorted(found) == [0, 1, 2, 3]
    save_file({**load_file(one.strips.path(2)), "max.2": torch.zeros(1, 1)}, one.strips.path(2))
    after = one.tile(3, 0, 0, 16)
    assert (before.status, after.status, found[4:]) == (EXACT, ESTIMATE, [2])
    rows = one.shape.queries_of_strip >> 3
    known = codes.decode(after.mean, bits=16).isnan().all(1).logical_not()
    assert known.tolist() == [not 2 * rows <= row < 3 * rows for row in range(after.rows)]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0])
def test_numbers_that_no_pass_wrote_do_not_fail(tmp_path, number):
    """Sizes and types are compared, numbers are not: wrong ones are shown, and nothing fails."""
    one = made(tmp_path / "map", "none")
    filling.fill(one.call, one.strips)
    for strip in range(one.shape.strips):
        tensors = load_file(one.strips.path(strip))
        for name in ("tops", "lse", "entropy", "peak", "received"):
            tensors[name] = torch.full_like(tensors[name], number)
        save_file(tensors, one.strips.path(strip))
    again = made(tmp_path / "map", "none")
    assert again.strips.complete
    assert again.tile(again.shape.top, 0, 0, 16).status == EXACT
    assert again.cell(0, 3, 5).queries == slice(5, 6)
    assert places(again)["status"] == "exact"


@pytest.mark.parametrize("gone", ["removed", "empty span"])
def test_the_folder_may_go_while_the_map_is_shown(tmp_path, gone):
    one, filler = made(tmp_path / "map", "none"), Filler()
    filler.want(one)
    assert exact(filler, one)
    before, received = one.tile(one.shape.top, 0, 0, 16), one.strips.received.clone()
    for strip in range(one.shape.strips):
        file = one.strips.path(strip)
        file.unlink() if gone == "removed" else save_file({**load_file(file), **LIES[gone]}, file)
    assert one.tile(one.shape.top, 0, 0, 16).status == NOT_YET
    places(one)
    assert filler.status(one).phase != "exact"
    assert exact(filler, one)
    again = one.tile(one.shape.top, 0, 0, 16)
    assert torch.equal(again.mean.codes, before.mean.codes)
    assert torch.equal(one.strips.received, received)
    filler.close()


def exact(filler, one) -> bool:
    """Whether a map becomes exact within 20 seconds."""
    for _ in range(400):
        if filler.status(one).phase == "exact":
            return True
        threading.Event().wait(0.05)
    return False


def test_a_link_in_the_place_of_a_strip_is_neither_read_nor_written_through(tmp_path):
    one, theirs = made(tmp_path / "map"), tmp_path / "theirs"
    one.strips.write(0, first_strip(one))
    one.strips.path(0).rename(theirs)
    before = theirs.read_bytes()
    one.strips.path(0).symlink_to(theirs)
    again = made(tmp_path / "map")
    assert not again.strips.has(0)
    theirs.write_text("theirs")
    filling.fill_one(again.call, again.strips)
    assert (theirs.read_text(), again.strips.path(0).read_bytes()) == ("theirs", before)


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_lock_that_is_no_file_is_said_and_neither_waited_for_nor_followed(tmp_path, kind):
    one, filler = made(tmp_path / "map"), Filler()
    (tmp_path / "map").mkdir()
    lock = tmp_path / "map" / "strip-00000.lock"
    os.mkfifo(lock) if kind == "pipe" else lock.symlink_to(tmp_path / "theirs")
    filler.want(one)
    for _ in range(400):
        if filler.status(one).phase == "failed":
            break
        threading.Event().wait(0.05)
    assert "strip-00000.lock" in filler.status(one).error
    assert not (tmp_path / "theirs").exists()
    filler.close()


def test_threads_that_ask_at_once_count_a_strip_once(tmp_path):
    one = made(tmp_path / "map")
    filling.fill(one.call, one.strips)
    again = made(tmp_path / "map")
    ready = threading.Barrier(4)
    threads = [threading.Thread(target=lambda: (ready.wait(), again.strips.count())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    torch.testing.assert_close(again.strips.received, one.strips.received, rtol=1e-12, atol=0)


def test_several_at_once_share_the_strips(tmp_path, monkeypatch):
    monkeypatch.setattr(filling, "PAUSE", 0.01)
    written = []
    monkeypatch.setattr(
        Strips,
        "write",
        lambda self, strip, found, write=Strips.write: (written.append(strip), write(self, strip, found)),
    )
    maps = [made(tmp_path / "map") for _ in range(3)]
    threads = [threading.Thread(target=filling.fill, args=(one.call, one.strips)) for one in maps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(one.strips.complete for one in maps)
    assert sorted(written) == list(range(maps[0].shape.strips))


def test_the_filler_takes_the_last_opened_first_and_ends_at_once(tmp_path):
    one, other = made(tmp_path / "one"), made(tmp_path / "other")
    filler = Filler()
    filler.want(one)
    filler.want(other)
    for _ in range(600):
        if filler.status(one).phase == filler.status(other).phase == "exact":
            break
        threading.Event().wait(0.05)
    status = filler.status(one)
    assert (status.phase, status.rows, status.remaining, status.error) == ("exact", N, 0.0, None)
    filler.close()
    assert not filler.thread.is_alive()


@pytest.mark.parametrize("fails", [False, True])
def test_a_map_that_is_forgotten_while_it_is_filled_ends_nothing(tmp_path, monkeypatch, fails):
    one, other = made(tmp_path / "one"), made(tmp_path / "other")
    filling.fill(one.call, one.strips)
    filler, complete, at = Filler(), Strips.complete, threading.Event()

    def forgetting(strips):
        if strips is one.strips:
            filler.forget(one)
            at.set()
            if fails:
                raise OSError("gone")
        return complete.fget(strips)

    monkeypatch.setattr(Strips, "complete", property(forgetting))
    filler.want(one)
    assert at.wait(9)
    monkeypatch.undo()
    filler.want(other)
    for _ in range(900):
        if filler.status(other).phase == "exact":
            break
        time.sleep(0.01)
    assert filler.status(other).phase == "exact"
    assert not {one} & (filler.begun.keys() | filler.took.keys() | filler.failed.keys())
    filler.close()


def test_a_map_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "map").write_text("in the way")
    one, filler = made(tmp_path / "map"), Filler()
    filler.want(one)
    for _ in range(200):
        if filler.status(one).phase == "failed":
            break
        threading.Event().wait(0.05)
    assert "map" in filler.status(one).error
    filler.forget(one)
    assert filler.status(one).phase == "waiting"
    filler.close()


def test_a_cell_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(LookError, match="cell: there is no cell x=1709, y=0 at zoom 0; the head is 1709 x 1709"):
        made(tmp_path / "map").cell(0, N, 0)
