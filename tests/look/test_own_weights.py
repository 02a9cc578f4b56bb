"""A matrix of one's own as a head, and means of heads."""

import pytest
import torch

import headscope as hs
from headscope.errors import LookError
from headscope.look import average
from tests.look.oracle import D


def matrix(rows=5, keys=7, seed=0, dtype=torch.float64):
    return torch.randn(rows, keys, generator=torch.Generator().manual_seed(seed), dtype=dtype).softmax(-1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_weights_are_the_matrix(dtype):
    P = matrix().to(dtype)
    head = hs.Head.from_weights(P)
    wide = P.double() / P.double().sum(1, keepdim=True)
    torch.testing.assert_close(head.weights().double(), wide, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(head.entropy().double(), torch.special.entr(wide).sum(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.received().double(), wide.sum(0), rtol=1e-4, atol=1e-5)


def test_zeros_and_rows_of_zeros():
    P = matrix().tril(2)
    P = P / P.sum(1, keepdim=True)
    P[3] = 0
    head = hs.Head.from_weights(P.tolist())
    torch.testing.assert_close(head.weights().double(), P, rtol=1e-5, atol=1e-7)
    assert head.entropy().isfinite().all()
    assert head.lse.isneginf().tolist() == [False, False, False, True, False]
    assert hs.Head.from_weights(torch.eye(3)).sequences.whole  # a weight of 0 is no mask


def test_with_sinks_rows_may_sum_to_less():
    P = matrix() * torch.tensor([0.1, 0.5, 0.9, 0.999, 1.0])[:, None].double()
    torch.testing.assert_close(hs.Head.from_weights(P, sinks=True).weights(), P)


def test_a_page_and_a_figure_take_it(tmp_path):
    P = matrix(7).tril()
    axis = hs.Axis.tokens(["the", "cat", "sat", "on", "the", "mat", "."])
    head = hs.Head.from_weights(P / P.sum(1, keepdim=True), queries=axis, keys=axis)
    assert hs.page(head, tmp_path / "page.html").stat().st_size > 0
    assert hs.figure(head) is not None


@pytest.mark.parametrize(
    ("P", "message"),
    [
        (torch.zeros(2, 3, 3), r"P is \(2, 3, 3\) torch.float32; give one head's \(queries, keys\)"),
        (torch.ones(2, 2, dtype=torch.int64), r"P is \(2, 2\) torch.int64; give one head's"),
        (torch.tensor([[0.5, 0.5], [0.2, 0.2]]), "row 1 of P is from 0.2 to 0.2 and has the sum 0.4; weights are 0 or"),
        (torch.tensor([[1.5, -0.5]]), "row 0 of P is from -0.5 to 1.5"),
        (torch.tensor([[float("nan"), 1.0]]), "row 0 of P is from nan to nan"),
    ],
)
def test_what_is_no_weights(P, message):
    with pytest.raises(LookError, match="Head.from_weights: " + message):
        hs.Head.from_weights(P)


def test_scores_and_columns():
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(5, D, generator=g), torch.randn(7, D, generator=g)
    head = hs.Head(q, k, mask=hs.causal(), scale=0.3, softcap=2.0)
    scores = 2.0 * torch.tanh(q @ k.T * 0.3 / 2.0)
    seen = hs.causal().to_dense(5, 7)[0, 0]
    torch.testing.assert_close(head.scores(), scores.masked_fill(~seen, -torch.inf))
    torch.testing.assert_close(head.scores([4, 0], slice(2, 4)), scores.masked_fill(~seen, -torch.inf)[[4, 0], 2:4])
    torch.testing.assert_close(head.column(-2), head.weights()[:, -2])


def test_means_count_each_sequence_from_its_own_beginning():
    g = torch.Generator().manual_seed(3)
    q, k = torch.randn(2, 2, 6, D, generator=g).double()
    long = hs.Head(q[0], k[0], mask=hs.causal())
    padded = torch.zeros(6, 6, dtype=torch.bool)
    padded[2:, 2:] = torch.ones(4, 4).tril().bool()
    short = hs.Head(q[1], k[1], mask=hs.dense(padded))
    found = hs.look.mean([long, short])
    expected = long.weights().clone()
    expected[:4] /= 2
    expected[:4, :4] += short.weights()[2:, 2:] / 2
    torch.testing.assert_close(found.weights().double(), expected, rtol=1e-5, atol=1e-6)
    assert found.keys == hs.Axis.positions(6)
    packed = hs.Head(torch.cat([q[0], q[1, 2:]]), torch.cat([k[0], k[1, 2:]]), mask=hs.causal() & hs.documents([6, 4]))
    torch.testing.assert_close(hs.look.mean([packed]).weights().double(), expected, rtol=1e-5, atol=1e-6)


def test_means_keep_the_labels_that_all_have():
    axis = hs.Axis.tokens(["a", "b", "c"])
    heads = [hs.Head(*torch.randn(2, 3, D), queries=axis, sinks=torch.tensor([0.5])) for _ in range(3)]
    found = hs.look.mean(heads)
    assert found.queries == found.keys == axis
    torch.testing.assert_close(found.weights(), torch.stack([head.weights() for head in heads]).mean(0))


def test_what_has_no_mean(monkeypatch):
    cross = hs.Head(torch.zeros(3, D), torch.zeros(4, D))
    with pytest.raises(LookError, match="mean: some of these heads look at their own sequence and some at another"):
        hs.look.mean([cross, hs.Head(torch.zeros(3, D), torch.zeros(3, D))])
    with pytest.raises(LookError, match="mean: there are no heads with queries that see something"):
        hs.look.mean([])
    monkeypatch.setattr(average, "MOST_WEIGHTS", 11)
    with pytest.raises(LookError, match="mean: 3 x 4 weights; a mean is held as a whole, and 11 fit"):
        hs.look.mean([cross])
