import gc
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headscope.errors import MaskError
from headscope.nn.torch_masks import CAUSAL, Sizes, TorchMaskReader, causal_hint

SIZES = Sizes(batch=2, heads=3, queries=5, keys=7)


def test_true_means_may_not_attend_and_both_masks_count() -> None:
    pair, key = torch.rand(5, 7) < 0.5, torch.rand(2, 7) < 0.5
    mask, bias = TorchMaskReader()(pair, key, SIZES)
    assert mask is not None
    assert bias is None
    assert torch.equal(mask.to_dense(5, 7).expand(2, 1, 5, 7), ~(pair | key[:, None, None]))


def test_appended_keys_are_seen_by_all() -> None:
    pair, key = torch.ones(5, 7, dtype=torch.bool), torch.full((2, 7), -torch.inf)
    mask, _ = TorchMaskReader()(pair, key, SIZES._replace(appended=2))
    assert mask is not None
    assert mask.to_dense(5, 9).expand(2, 1, 5, 9).sum((0, 1, 2)).tolist() == [0] * 7 + [10] * 2


def test_numbers_of_both_masks_are_added() -> None:
    pair, key = torch.randn(6, 5, 7), torch.randn(2, 7)
    mask, bias = TorchMaskReader()(pair, key, SIZES)
    assert mask is None
    assert bias is not None
    torch.testing.assert_close(bias.block(slice(0, 5), 0, 7, 5, 7), pair.view(2, 3, 5, 7) + key[:, None, None])


def test_masks_that_hide_nothing_are_none() -> None:
    read = TorchMaskReader()
    for nothing in (torch.zeros(5, 7), torch.zeros(5, 7, dtype=torch.bool)):
        assert read(nothing, None, SIZES) == (None, None)


def test_a_causal_mask_is_known_as_one() -> None:
    square = SIZES._replace(keys=5)
    written = nn.Transformer.generate_square_subsequent_mask(5)
    for mask in (written, written.isneginf()):
        assert TorchMaskReader()(mask, None, square).mask is CAUSAL
    assert causal_hint(square) is CAUSAL
    # Torch counts from the first key where there are more keys than queries.
    assert torch.equal(causal_hint(SIZES).to_dense(5, 7)[0, 0], torch.ones(5, 7, dtype=torch.bool).tril())


def test_a_mask_is_read_once_until_it_is_written_to() -> None:
    read, mask, key = TorchMaskReader(), torch.rand(5, 7) < 0.5, torch.rand(2, 7) < 0.5
    first = read(mask, key, SIZES)
    assert read(mask, key, SIZES) is first
    mask.logical_not_()
    second = read(mask, key, SIZES)
    assert second is not first
    assert torch.equal(second.mask.to_dense(5, 7).expand(2, 1, 5, 7), ~(mask | key[:, None, None]))


def test_nothing_is_kept_of_masks_that_are_gone() -> None:
    read, mask, key = TorchMaskReader(), torch.rand(5, 7) < 0.5, torch.rand(2, 7) < 0.5
    read(mask, key, SIZES)
    read(mask, None, SIZES)
    del mask
    gc.collect()
    assert not read._known


def test_a_mask_that_stays_holds_nothing_of_those_that_went() -> None:
    read, mask = TorchMaskReader(), torch.rand(5, 7) < 0.5
    for _ in range(5):
        read(mask, torch.rand(2, 7) < 0.5, SIZES)
        mask.logical_not_()
        read(mask, None, SIZES)
    gc.collect()
    assert weakref.getweakrefcount(mask) == 1
    assert len(read._known) == 1


@pytest.mark.parametrize("which", ["pair", "key"])
def test_a_mask_in_the_memory_of_numpy_is_read_again(which: str) -> None:
    array = np.zeros((5, 7) if which == "pair" else (2, 7), dtype=bool)
    read, mask = TorchMaskReader(), torch.from_numpy(array)
    given = {"attn_mask": None, "key_padding_mask": None, "sizes": SIZES}
    given["attn_mask" if which == "pair" else "key_padding_mask"] = mask
    first = read(**given)
    assert first.mask is None
    assert read(**given) is first
    array[:, 3] = True
    assert not read(**given).mask.to_dense(5, 7)[..., 3].any()


@pytest.mark.parametrize(
    ("pair", "key", "message"),
    [
        (torch.zeros(5, 6), None, r"attn_mask is \(5, 6\); give \(queries, keys\) = \(5, 7\) or .* = \(6, 5, 7\)"),
        (torch.zeros(5, 7, dtype=torch.int64), None, "attn_mask is torch.int64; give booleans"),
        (None, torch.zeros(2, 6), r"key_padding_mask is \(2, 6\); give \(batch, keys\) = \(2, 7\)"),
        (None, torch.zeros(7), r"key_padding_mask is \(7,\); .* or \(keys,\) where the inputs have no batch"),
        (None, torch.zeros(2, 7, dtype=torch.uint8), "key_padding_mask is torch.uint8; give booleans"),
    ],
)
def test_masks_that_do_not_fit_are_named(pair: Tensor | None, key: Tensor | None, message: str) -> None:
    with pytest.raises(MaskError, match=message):
        TorchMaskReader()(pair, key, SIZES)
