"""A mask on its way through a model: the same mask as long as nobody computes with it."""

import torch

import headscope as hs
from headscope.hf.lazy_mask import LazyMask


def lazy() -> LazyMask:
    return LazyMask(hs.causal(), 2, 3, 5, "cpu")


def test_a_mask_that_is_moved_to_where_it_is_stays_the_same():
    mask = lazy()
    for same in (
        mask.to("cpu"), mask.to(torch.bool), mask.to(torch.device("cpu"), torch.bool), mask.to(dtype=torch.bool),
        mask.to(torch.zeros(1, dtype=torch.bool)), mask.contiguous(), mask.detach(),
    ):  # fmt: skip
        assert same is mask


def test_a_mask_that_becomes_numbers_is_written_out():
    mask, want = lazy(), hs.causal().to_dense(3, 5).expand(2, -1, 3, 5)
    for numbers in (
        mask.to(torch.float16), mask.to("cpu", torch.float16), mask.to(dtype=torch.float16),
        mask.to(torch.zeros(1, dtype=torch.float16)), mask.half(), mask.type(torch.float16),
    ):  # fmt: skip
        assert type(numbers) is torch.Tensor
        assert numbers.dtype == torch.float16
        assert torch.equal(numbers, want.half())
    assert torch.equal(~mask, ~want)
