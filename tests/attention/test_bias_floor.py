"""Biases by distance that fall below all weights: the same results as in float64, and no denormal number on the way."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import headscope as hs
from headscope.attention.bias import Line
from headscope.attention.masks.runs import Runs
from headscope.attention.paths.tiled.bias_floor import ABOVE, sees_highest, with_floor

TINY = torch.finfo(torch.float32).tiny
SLOPES = torch.tensor([1.0, 0.25, 0.031])


def inputs(queries: int, keys: int, size: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, h, n, 8, generator=random) * size for h, n in ((3, queries), (1, keys), (1, keys)))


def line_of(slopes: torch.Tensor, queries: int, keys: int) -> torch.Tensor:
    return hs.alibi(slopes).line(queries, keys, torch.device("cpu"), torch.float32)


def oracle(q, k, v, slopes, seen=None, softcap=None):
    """Values in float64, from the formula."""
    q, k, v = q.double(), k.double().repeat_interleave(3, 1), v.double().repeat_interleave(3, 1)
    queries, keys = q.shape[2], k.shape[2]
    scores = q @ k.mT / q.shape[3] ** 0.5
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    distance = (torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)).abs()
    scores = scores - slopes.double()[:, None, None] * distance
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    return scores.softmax(-1).nan_to_num() @ v


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize(("queries", "keys"), [(701, 701), (331, 907)])
def test_values_and_gradients_are_those_of_float64(queries, keys, softcap):
    ours = [x.requires_grad_() for x in inputs(queries, keys)]
    exact = [x.detach().double().requires_grad_() for x in ours]
    grad = torch.randn(2, 3, queries, 8)
    values = hs.attend(*ours, bias=hs.alibi(SLOPES), softcap=softcap, backend="tiled")
    wanted = oracle(*exact, SLOPES, softcap=softcap)
    torch.testing.assert_close(values.double(), wanted, atol=2e-6, rtol=2e-6)
    for found, right in zip(
        torch.autograd.grad(values, ours, grad), torch.autograd.grad(wanted, exact, grad.double()), strict=True
    ):
        torch.testing.assert_close(found.double(), right, atol=2e-5, rtol=2e-5)


def test_the_heads_whose_bias_ends_far_down_have_no_denormal_weight():
    q, k, _ = inputs(701, 701)
    line = line_of(SLOPES, 701, 701)
    lifted = with_floor(line, q, k, 8**-0.5, None, None)
    places = torch.arange(701) - torch.arange(701)[:, None] + 700
    for numbers, denormal in ((line, True), (lifted, False)):
        scores = q @ k.repeat_interleave(3, 1).mT / 8**0.5 + numbers[:, places]
        p = (scores.double() - scores.double().logsumexp(-1, keepdim=True)).exp()
        assert bool(((p > 1e-45) & (p < TINY)).any()) is denormal
    assert (lifted[:2].amin(1) >= math.log(TINY) + ABOVE).all()
    assert torch.equal(lifted[2], line[2])  # its far end is near enough


@pytest.mark.parametrize("size", [6.0, torch.nan, torch.inf])
def test_large_scores_and_numbers_that_are_none_lift_nothing(size):
    q, k, _ = inputs(701, 701, size)
    line = line_of(SLOPES, 701, 701)
    assert torch.equal(with_floor(line, q, k, 8**-0.5, None, None), line)


def test_what_all_keys_have_in_common_counts_for_nothing():
    q, k, _ = inputs(701, 701)
    line = line_of(SLOPES, 701, 701)
    moved = with_floor(line, q, k + 100.0, 8**-0.5, None, None)
    assert not torch.equal(moved, line)


def test_minus_infinity_hides_a_key_as_before():
    q, k, v = inputs(701, 701)
    line = line_of(SLOPES, 701, 701)
    line[:, :300] = -torch.inf  # more than 400 keys back
    lifted = with_floor(line, q, k, 8**-0.5, None, None)
    assert lifted[:, :300].isneginf().all()
    assert not torch.equal(lifted, line)
    far = (torch.arange(701)[:, None] - torch.arange(701)) <= 400
    values = hs.attend(q, k, v, bias=Line(line, 701), backend="tiled")
    torch.testing.assert_close(values.double(), oracle(q, k, v, SLOPES, far), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_dtypes_keep_their_numbers(dtype):
    q, k, _ = (x.to(dtype) for x in inputs(701, 701))
    line = line_of(SLOPES, 701, 701)
    assert with_floor(line, q, k, 8**-0.5, None, None) is line


MASKS = {
    "causal": hs.causal(),
    "the own key hidden": hs.dense(~torch.eye(397, dtype=torch.bool)),
    "only keys far back": hs.dense(torch.ones(397, 397, dtype=torch.bool).tril(-200)),
    "padding": hs.padding([397, 211]),
    "documents": hs.documents([101, 7, 289]) & hs.causal(),
    "window": hs.window(150, 3),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_row_that_does_not_see_the_highest_key_keeps_its_numbers(name):
    q, k, v = inputs(397, 397)
    seen = MASKS[name].to_dense(397, 397)
    values = hs.attend(q, k, v, mask=MASKS[name], bias=hs.alibi(SLOPES), backend="tiled")
    # Scores of some hundreds are rounded to 2e-5, and so are their weights; a wrong floor would be off by 0.1 and more.
    torch.testing.assert_close(values.double(), oracle(q, k, v, SLOPES, seen), atol=5e-5, rtol=1e-6)


@given(
    st.integers(1, 60),
    st.integers(1, 400),
    st.sampled_from([1e-3, 0.3, 1.0, 3.0]),
    st.floats(0.01, 40.0),
    st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_any_slope_and_size(queries, keys, size, slope, seed):
    q, k, v = inputs(min(queries, keys), keys, size, seed)
    slopes = torch.tensor([slope, slope / 3, slope / 100])
    values = hs.attend(q, k, v, bias=hs.alibi(slopes), backend="tiled")
    # Scores of 100 are rounded to 4e-6, and so are their weights.
    torch.testing.assert_close(values.double(), oracle(q, k, v, slopes), atol=5e-6 * max(1, size**2), rtol=1e-6)


def test_rows_that_see_nothing_are_no_reason_against_it():
    line = line_of(SLOPES, 5, 5)
    start, stop = (
        torch.zeros(1, 1, 5, 1, dtype=torch.int32),
        torch.tensor([1, 2, 3, 4, 0], dtype=torch.int32).view(1, 1, 5, 1),
    )
    assert sees_highest(line, 5, 5, Runs(start, stop)).all()
    assert not sees_highest(line, 5, 5, Runs(start, stop - 1)).any()
    assert not sees_highest(line.roll(3, 1), 5, 5, None).any()  # the highest one would lie beyond the ends
