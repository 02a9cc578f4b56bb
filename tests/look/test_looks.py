"""The statistics of one head, and the looks that need to know what its positions are."""

import pytest
import torch

import headscope as hs
from headscope.errors import LookError
from headscope.look import copies
from tests.look.oracle import D, K, Q

TOKENS = hs.Axis.tokens(
    ["[CLS]", "a", "b", "c", "a", "b", "d", "[SEP]"],
    special=[True, *[False] * 6, True],
    ids=[101, 1, 2, 3, 1, 2, 4, 102],
)


@pytest.fixture(params=["all weights at once", "token after token"])
def small_and_large(request, monkeypatch):
    """Copies are looked for in two ways; few weights and many."""
    if request.param == "token after token":
        monkeypatch.setattr(copies, "BLOCK", 3)


def head_of(axis=TOKENS, *, mask=None, values=True, seed=0):
    g = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, axis.length, D, generator=g)
    return hs.Head(q, k, v if values else None, mask=mask, queries=axis)


def test_every_statistic_of_a_head_is_that_of_its_weights():
    g = torch.Generator().manual_seed(0)
    head = hs.Head(torch.randn(Q, D, generator=g), torch.randn(K, D, generator=g), mask=hs.causal(), softcap=2.0)
    weights = head.weights()
    near = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(head.entropy(), torch.special.entr(weights).sum(1), **near)
    torch.testing.assert_close(head.concentration(), weights.square().sum(1), **near)
    torch.testing.assert_close(head.received(), weights.sum(0), **near)
    torch.testing.assert_close(head.offsets(1)[1], weights.diagonal(K - Q).mean(), **near)
    torch.testing.assert_close(head.top(3).weights, weights.topk(3).values, **near)
    torch.testing.assert_close(head.heatmap(100), weights, **near)
    torch.testing.assert_close(head.heatmap(1, "max")[0, 0], weights.max(), **near)
    torch.testing.assert_close(head.project(torch.ones(K, 2)), torch.ones(Q, 2), **near)


def test_special():
    head = head_of()
    torch.testing.assert_close(head.special(), head.weights(keys=[0, 7]).sum(1))
    with pytest.raises(LookError, match="special: the keys of this head are plain positions"):
        head_of(hs.Axis.positions(5)).special()


def test_confidence_leaves_special_tokens_out():
    head = head_of()
    assert head.confidence() == pytest.approx(float(head.weights(slice(1, 7), slice(1, 7)).amax(1).mean()), rel=1e-5)
    assert head_of(hs.Axis.tokens(["[CLS]"], special=[True])).confidence() == 0.0


@pytest.mark.parametrize("mask", [None, hs.causal()])
def test_duplicates_and_induction(mask, small_and_large):
    head = head_of(mask=mask)
    weights = head.weights()
    duplicates = torch.zeros(8)
    duplicates[4], duplicates[5] = weights[4, 1], weights[5, 2]
    induction = torch.zeros(8)
    induction[4], induction[5] = weights[4, 2], weights[5, 3]
    torch.testing.assert_close(head.duplicates(), duplicates)
    torch.testing.assert_close(head.induction(), induction)


def test_induction_of_a_token_that_repeats_itself_looks_at_the_token_itself(small_and_large):
    axis = hs.Axis.tokens(["a", "a", "a"])
    head = head_of(axis)
    weights = head.weights()
    torch.testing.assert_close(head.induction(), torch.stack([torch.tensor(0.0), weights[1, 1], weights[2, 1:].sum()]))


def test_copies_count_from_the_end_when_keys_are_cached(small_and_large):
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, D, generator=g), torch.randn(6, D, generator=g)
    head = hs.Head(q, k, queries=TOKENS.select([4, 5]), keys=TOKENS.select(range(6)))
    weights = head.weights()
    torch.testing.assert_close(head.duplicates(), torch.stack([weights[0, 1], weights[1, 2]]))
    torch.testing.assert_close(head.induction(), torch.stack([weights[0, 2], weights[1, 3]]))


def test_looks_at_tokens_need_tokens():
    for look in ("duplicates", "induction"):
        with pytest.raises(LookError, match=r"the positions of this head are patches, not tokens"):
            getattr(head_of(hs.Axis.patches(2, 3)), look)()


def test_value_weighted():
    head = head_of()
    W = torch.randn(D, 5, generator=torch.Generator().manual_seed(1))
    carried = head.weights()[:, :, None] * (head.v @ W)
    torch.testing.assert_close(head.value_weighted(W), carried.norm(dim=-1))
    torch.testing.assert_close(head.value_weighted(W, 3, [1, 2]), carried.norm(dim=-1)[3:4, 1:3])
    torch.testing.assert_close(head.value_weighted(), head.weights() * head.v.norm(dim=1))


def test_value_weighted_needs_values_that_fit():
    with pytest.raises(LookError, match="value_weighted: this head was recorded without its values"):
        head_of(values=False).value_weighted()
    with pytest.raises(LookError, match=r"value_weighted: W_O is \(3, 5\) and a value has 11 numbers"):
        head_of().value_weighted(torch.zeros(3, 5))


def test_a_decoding_step_has_rows_but_no_profile():
    head = hs.Head(torch.ones(1, D), torch.ones(8, D), queries=TOKENS.select([7]), keys=TOKENS)
    assert head.received().shape == (8,)
    with pytest.raises(LookError, match=r"offsets: 1 query has no profile"):
        head.offsets(2)
