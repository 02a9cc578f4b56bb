"""Small pictures: the largest weight of each block of cells."""

import torch

from headscope import Head, causal, dense
from headscope.view.picture import picture


def head(q=13, k=17, mask=None):
    random = torch.Generator().manual_seed(1)
    return Head(torch.randn(q, 5, generator=random), torch.randn(k, 5, generator=random), mask=mask)


def test_a_picture_as_large_as_the_head_is_the_head():
    one = head()
    torch.testing.assert_close(picture(one, 99, 99), one.weights())


def test_every_block_shows_its_largest_weight(monkeypatch):
    monkeypatch.setattr("headscope.view.picture.BLOCK", 40)
    one = head()
    weights, small = one.weights(), picture(one, 4, 5)
    for r in range(4):
        for c in range(5):
            rows = [i for i in range(13) if i * 4 // 13 == r]
            columns = [j for j in range(17) if j * 5 // 17 == c]
            torch.testing.assert_close(small[r, c], weights[rows][:, columns].max())


def test_what_may_not_be_seen_is_minus_one():
    one = head(13, 13, causal())
    small = picture(one, 13, 13)
    assert torch.equal(small < 0, torch.ones(13, 13).triu(1).bool())
    allowed = torch.rand(1, 1, 13, 17) > 0.6
    assert torch.equal(picture(head(mask=dense(allowed)), 13, 17) < 0, ~allowed[0, 0])


def test_an_even_head_is_not_shown_as_if_it_were_sharp():
    from headscope.view.picture import top

    assert top(torch.full((3, 100), 0.01), 100) == 0.04
    assert top(torch.eye(3), 3) == 1.0
    assert top(torch.full((1, 1), -1.0), 1) == 1.0
