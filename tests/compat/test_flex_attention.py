"""What is known of FlexAttention's inside, compared with FlexAttention."""

import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from headscope.compat import flex_attention as compat
from headscope.errors import UnsupportedVersion


def causal(b, h, q, k):
    return q >= k


def test_a_block_mask_is_taken_apart():
    mask = create_block_mask(causal, 1, 1, 384, 640, device="cpu", BLOCK_SIZE=(128, 256))
    parts = compat.block_mask_parts(mask.as_tuple())
    assert parts.mask_mod is causal
    assert (parts.rows, parts.columns) == (128, 256)
    assert parts.partly_count is mask.kv_num_blocks
    assert parts.partly_columns is mask.kv_indices
    assert parts.wholly_count is mask.full_kv_num_blocks
    assert parts.wholly_columns is mask.full_kv_indices


@pytest.fixture
def unknown():
    """What was found before is forgotten, before and after."""
    compat.places.cache_clear()
    yield
    compat.places.cache_clear()


def test_a_block_mask_with_its_parts_elsewhere_is_read_all_the_same(unknown, monkeypatch):
    written = BlockMask.as_tuple
    monkeypatch.setattr(BlockMask, "as_tuple", lambda self: (None, *written(self)[::-1]))
    mask = create_block_mask(causal, 1, 1, 384, 640, device="cpu")
    assert compat.block_mask_parts(mask.as_tuple()).wholly_columns is mask.full_kv_indices


def test_a_block_mask_that_leaves_something_out_is_an_error(unknown, monkeypatch):
    written = BlockMask.as_tuple
    monkeypatch.setattr(BlockMask, "as_tuple", lambda self: written(self)[:-1])
    with pytest.raises(UnsupportedVersion, match=r"has another \S+BlockMask.as_tuple \(it leaves out what"):
        compat.block_mask_parts(())


def test_the_operator_says_the_order_of_its_arguments():
    operator = torch.ops.higher_order.flex_attention
    named = compat.flex_arguments(operator, tuple(range(7)), {})
    wanted = ("query", "key", "value", "score_mod", "block_mask", "scale", "kernel_options")
    assert named == {name: position for position, name in enumerate(wanted)}


def test_an_operator_with_other_arguments_is_an_error():
    class Other:
        def __call__(self, q, k, v): ...

    with pytest.raises(
        UnsupportedVersion, match=r"another torch.ops.higher_order.flex_attention \(its arguments are k"
    ):
        compat.flex_arguments(Other(), (1, 2, 3), {})


def test_the_functions_that_stand_for_nothing_are_recognised():
    seen = {}

    class Catch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.higher_order.flex_attention:
                seen.update(compat.flex_arguments(func, args, kwargs or {}))
            return func(*args, **(kwargs or {}))

    q = torch.randn(1, 1, 16, 16)
    with Catch(), torch.compiler.set_stance("force_eager"):
        flex_attention(q, q, q)
    assert compat.is_identity(seen["score_mod"])
    assert compat.is_no_mask(compat.block_mask_parts(seen["block_mask"]).mask_mod)
    assert not compat.is_identity(causal)
    assert not compat.is_no_mask(causal)
