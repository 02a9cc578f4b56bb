"""Biases, block by block, against their definitions and against the model they come from."""

import math

import pytest
import torch

import headscope as hs
from headscope.attention.bias import Relative
from headscope.attention.paths.tiled.tile_bias import TileBias, bias_values
from headscope.errors import MaskError

Q, K, H = 7, 11, 3


def test_alibi_slopes_are_the_paper_s():
    slopes = hs.alibi(8).slopes
    torch.testing.assert_close(slopes, torch.tensor([2.0 ** -(n + 1) for n in range(8)]))
    # Between powers of two: those of 8, then every other one of 16.
    assert [round(-math.log2(s), 1) for s in hs.alibi(11).slopes.tolist()[8:]] == [0.5, 1.5, 2.5]


def test_alibi_is_aligned_to_the_end():
    block = hs.alibi(torch.ones(H)).block(slice(0, Q), 0, K, Q, K)
    i, j = torch.arange(K - Q, K)[:, None], torch.arange(K)[None]
    assert (block[0, 1] == -(i - j).abs()).all()


@pytest.mark.parametrize("bidirectional", [True, False])
def test_relative_buckets_are_t5_s(bidirectional):
    from transformers.models.t5.modeling_t5 import T5Attention

    offsets = torch.arange(-300, 300)
    bias = Relative(torch.zeros(32, 1), bidirectional, 128)
    theirs = T5Attention._relative_position_bucket(
        offsets, bidirectional=bidirectional, num_buckets=32, max_distance=128
    )
    assert (bias.buckets(offsets) == theirs).all()


@pytest.mark.parametrize(
    "bias",
    [
        hs.alibi(H),
        hs.relative(torch.randn(8, H), max_distance=9),
        hs.dense_bias(torch.randn(2, H, Q, K)),
        hs.dense_bias(torch.randn(1, K)),
    ],
    ids=repr,
)
def test_every_block_is_a_part_of_the_whole(bias):
    whole = bias.block(slice(0, Q), 0, K, Q, K).expand(-1, -1, Q, -1)
    tiles = TileBias(bias_values(bias, Q, K, torch.zeros(1)), Q)
    for rows, first, last in ((slice(2, 5), 3, 9), (slice(0, 1), 0, 1), (slice(6, 7), 0, K)):
        part = bias.block(rows, first, last, Q, K)
        expected = whole[:, :, rows, first:last]
        assert (part.expand_as(expected) == expected).all()
        torch.testing.assert_close(
            tiles.block(slice(0, 2), slice(0, H), rows, first, last).expand_as(expected), expected
        )


def test_gradients_of_blocks_add_up_to_the_gradient_of_the_whole():
    for values in (torch.randn(H, Q + K - 1), torch.randn(1, H, 1, K), torch.randn(2, 1, Q, K)):
        tiles = TileBias(values, Q)
        pull = torch.randn(2, H, Q, K)
        for items, heads, rows, first, last in (
            (slice(0, 2), slice(0, 2), slice(0, 4), 0, 5),
            (slice(0, 2), slice(0, 2), slice(0, 4), 5, K),
            (slice(0, 2), slice(0, 2), slice(4, Q), 0, K),
            (slice(0, 2), slice(2, H), slice(0, Q), 0, K),
        ):
            tiles.add_gradient(items, heads, rows, first, last, pull[items, heads, rows, first:last])
        leaf = values.clone().requires_grad_()
        if leaf.ndim == 2:
            index = torch.arange(K)[None] - torch.arange(Q)[:, None] + Q - 1
            whole = leaf[:, index][None]
        else:
            whole = leaf
        (whole * pull).sum().backward()
        torch.testing.assert_close(tiles.grad, leaf.grad)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hs.alibi(0), "0 heads; give how many query heads"),
        (lambda: hs.relative(torch.zeros(2, 3)), "give at least 4 buckets"),
        (lambda: hs.relative(torch.zeros(32, 3), max_distance=8), "a max_distance above the 8"),
        (lambda: hs.dense_bias(torch.ones(2, 2, 2)), r"the bias is \(2, 2, 2\); give"),
    ],
)
def test_biases_that_mean_nothing(make, message):
    with pytest.raises(MaskError, match=message):
        make()


def test_biases_for_other_sizes():
    x = torch.randn(2, 3, 5, 4)
    with pytest.raises(MaskError, match="the bias is for 4 heads and q has 3"):
        hs.attend(x, x, x, bias=hs.alibi(4))
    with pytest.raises(MaskError, match=r"the scores are \(2, 3, 5, 5\)"):
        hs.attend(x, x, x, bias=hs.dense_bias(torch.zeros(5, 6)))
