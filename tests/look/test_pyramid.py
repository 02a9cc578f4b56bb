"""The map of a head: tiles and pyramids, exact at every zoom, for every mask, bias, softcap and sink."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import headscope as hs
from headscope.errors import LookError
from headscope.look.kernels import pool as kernel
from headscope.look.kernels.part import part
from headscope.look.pyramid import TILE, base_zoom, top_zoom

MASKS = {
    "none": lambda q, k: None,
    "causal": lambda q, k: hs.causal(),
    "window": lambda q, k: hs.window(41),
    "scattered": lambda q, k: hs.dense(torch.rand(q, k, generator=torch.Generator().manual_seed(3)) > 0.7),
    "hole": lambda q, k: hs.window(13) | hs.first(5),
    "few": lambda q, k: hs.dense((torch.arange(q)[:, None] > q - 7) & (torch.arange(k) < 11)),
}
EXTRAS = {
    "plain": lambda dtype: {},
    "softcap": lambda dtype: {"softcap": 2.0},
    "bias": lambda dtype: {"bias": hs.alibi(1)},
    "sink": lambda dtype: {"sinks": torch.tensor([0.3], dtype=dtype)},
    "negative": lambda dtype: {"scale": -0.7},
}


def head(q, k, mask, extra, dtype=torch.float64, spread=1.0):
    made = torch.Generator().manual_seed(q + 3 * k)
    tensors = [spread**0.5 * torch.randn(n, 7, generator=made, dtype=torch.float64).to(dtype) for n in (q, k)]
    return hs.Head(*tensors, mask=MASKS[mask](q, k), **EXTRAS[extra](dtype))


def pooled(W: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and max of cells; what lies behind the edge is no number and counts nowhere."""
    padded = torch.nn.functional.pad(W, (0, -W.shape[1] % width, 0, -W.shape[0] % height), value=math.nan)
    cells = padded.view(len(padded) // height, height, -1, width)
    return cells.nanmean((1, 3)), cells.nan_to_num(nan=-1.0).amax((1, 3))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("extra", EXTRAS)
def test_one_pass_finds_what_the_matrix_says(mask, extra):
    one = head(277, 311, mask, extra)
    W = one.weights()
    found = kernel.pool(one.call, 8, 16, entropy=True)
    mean, largest = pooled(W, 8, 16)
    torch.testing.assert_close(found.mean, mean, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(found.max, largest, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(found.lse, one.lse, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.entropy, one.entropy(), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.peak, W.amax(1), rtol=1e-9, atol=1e-14)
    seen = torch.ones_like(W, dtype=torch.bool) if one.mask is None else one.mask.to_dense(277, 311)[0, 0]
    assert torch.equal(found.seen, pooled(seen.double(), 8, 16)[1] > 0)


@pytest.mark.parametrize("spread", [1e-3, 1.0, 300.0, 1e5])
@pytest.mark.parametrize("mask", ["none", "causal", "scattered"])
def test_float32_is_exact_for_small_and_enormous_scores(spread, mask, monkeypatch):
    """Blocks of 16 keys make every query's shift move."""
    monkeypatch.setattr(kernel, "BLOCK", 16 * kernel.ROWS)
    narrow, one = (head(131, 257, mask, "plain", dtype, spread) for dtype in (torch.float32, torch.float64))
    exact = hs.Head(narrow.q.double(), narrow.k.double(), mask=one.mask)
    found = kernel.pool(narrow.call, 4, 8, entropy=True)
    mean, largest = pooled(exact.weights(), 4, 8)
    # A score of size s carries an error of s roundings, and so does the logarithm of its weight.
    budget = 1e-6 + 4 * torch.finfo(torch.float32).eps * float(exact.scores().nan_to_num(neginf=0.0).abs().max())
    assert float((found.mean - mean).abs().max()) < budget
    assert float((found.max - largest).abs().max()) < budget
    assert float((found.entropy - exact.entropy()).abs().max()) < 6 * budget


@settings(max_examples=30)
@given(st.data())
def test_a_part_with_the_lse_of_the_whole_is_the_cut_of_the_whole(data):
    mask, extra = data.draw(st.sampled_from(sorted(MASKS))), data.draw(st.sampled_from(sorted(EXTRAS)))
    one = head(139, 167, mask, extra)
    top, left = data.draw(st.integers(0, 138)), data.draw(st.integers(0, 166))
    bottom, right = data.draw(st.integers(top + 1, 139)), data.draw(st.integers(left + 1, 167))
    some = part(one.call, slice(top, bottom), left, right)
    found = kernel.pool(some, 1, 1, lse=one.lse[top:bottom])
    torch.testing.assert_close(found.mean, one.weights()[top:bottom, left:right], rtol=1e-9, atol=1e-14)


def test_a_part_of_chosen_queries_keeps_mask_and_bias():
    one, rows = head(53, 61, "hole", "bias"), torch.tensor([50, 3, 3, 17])
    found = kernel.pool(part(one.call, rows), 1, 1)
    torch.testing.assert_close(found.mean, one.weights()[rows], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("q", "k"), [(1, 1), (257, 1), (3, 600), (530, 700)])
@pytest.mark.parametrize("mask", ["none", "causal", "hole"])
def test_every_tile_is_the_cut_of_the_pooled_matrix(q, k, mask):
    one = head(q, k, mask, "plain")
    whole = one.pyramid(cells=TILE)
    for z in range(top_zoom(q, k) + 1):
        mean, largest = pooled(one.weights(), 1 << z, 1 << z)
        for y in range(-(-mean.shape[0] // TILE)):
            for x in range(-(-mean.shape[1] // TILE)):
                cut = slice(y * TILE, (y + 1) * TILE), slice(x * TILE, (x + 1) * TILE)
                tile = one.tile(z, x, y)
                torch.testing.assert_close(tile.mean, mean[cut], rtol=1e-9, atol=1e-14)
                torch.testing.assert_close(tile.max, largest[cut], rtol=1e-9, atol=1e-14)
                if z >= whole.base:
                    for ours, theirs in zip(whole.tile(z, x, y), tile, strict=True):
                        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)


def test_a_tile_of_the_coarsest_zooms_pools_more_than_one_cell_of_a_pass(monkeypatch):
    """At zoom 3 a cell is made of four cells of a pass, when these have at most four queries."""
    monkeypatch.setattr("headscope.look.pyramid.LARGEST_CELL", 4)
    one = head(2049, 5, "none", "plain")
    torch.testing.assert_close(one.tile(4, 0, 0).mean, pooled(one.weights(), 16, 16)[0], rtol=1e-9, atol=1e-14)
    assert one.pyramid(256).top == one.pyramid(256).base == 4


def test_a_tile_of_a_long_head_asks_for_the_lse_of_its_own_queries_only():
    one = hs.Head(torch.randn(1, 3).expand(200_003, 3), torch.randn(500, 3))
    assert one.tile(0, 1, 700).mean.shape == (256, 244)
    assert one.known_lse is None


def test_a_pass_can_be_ended_between_two_blocks():
    one, calls = head(700, 30, "none", "plain"), iter([1])
    with pytest.raises(StopIteration):
        kernel.pool(one.call, 1, 1, between=lambda: next(calls))


def test_a_recorded_head_knows_the_lse_that_another_look_found(tmp_path):
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with hs.record(layer) as recording:
        layer(torch.randn(1, 5, 8))
    one = recording[0, 1]
    assert one.known_lse is None
    before = one.tile(0, 0, 0)
    _ = recording[0, 0].lse
    torch.testing.assert_close(one.known_lse, one.lse)
    torch.testing.assert_close(one.tile(0, 0, 0).mean, before.mean)


def test_zooms_of_sizes():
    for n in (1, 255, 256, 257, 1000, 131_072, 131_073):
        assert TILE << top_zoom(n, 1) >= n
        assert top_zoom(n, 1) == 0 or TILE << (top_zoom(1, n) - 1) < n
        assert math.ceil(n / (1 << base_zoom(n, 7, 300))) <= 300


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda one: one.tile(2, 0, 0), "tile: zoom 2 does not exist; 300 x 20 weights have zooms from 0 to 1"),
        (lambda one: one.tile(-1, 0, 0), "zoom -1 does not exist"),
        (lambda one: one.tile(0, 1, 0), r"no tile x=1, y=0 at zoom 0; x goes to 0 \(keys\) and y to 1 \(queries\)"),
        (lambda one: one.tile(0, 0, -1), "no tile x=0, y=-1"),
        (lambda one: one.pyramid(255), "pyramid: cells=255; give the most cells on a side, 256 or more"),
        (lambda one: one.pyramid(256).level(0), "pyramid: zoom 0 is not in it; it has 1 to 1"),
        (lambda one: one.pyramid(256).tile(1, 1, 0), "no tile x=1, y=0"),
    ],
)
def test_what_does_not_exist_is_refused(ask, message):
    with pytest.raises(LookError, match=message):
        ask(hs.Head(torch.zeros(300, 2), torch.zeros(20, 2)))
