"""Masks of other libraries, converted once, by name, at the edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from headscope.attention.bias import Bias, dense_bias
from headscope.attention.known import known
from headscope.attention.masks.block_mask import read_block_mask
from headscope.attention.masks.mask import Intervals, Mask, dense
from headscope.attention.masks.tensors import split
from headscope.errors import MaskError

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


def from_additive(mask: Float[Tensor, "*sizes"]) -> tuple[Mask, Bias | None]:
    """A mask that is added to the scores, as who may attend and, where it says more than that, as a bias.

    Minus infinity, and numbers so low that their weight is 0 (the lowest of the dtype, -1e9, -1e4), mean that a query
    may not see a key. A row of nothing but the lowest number sees nothing. Any other number but 0 is a bias.

    This is the form of the 4-D masks of Hugging Face models, and of `attn_mask` in torch where it is not boolean.

    Shapes:
        mask: `(q, k)` or `(b|1, h|1, q|1, k)`, floating point.

    Raises:
        MaskError: not floating point, or neither two nor four axes.

    Example:
        >>> mask, bias = from_additive(torch.tensor([[0.0, float("-inf")]]))
        >>> mask.to_dense(1, 2).flatten().tolist(), bias
        ([True, False], None)
    """
    if not mask.is_floating_point():
        raise MaskError(
            f"from_additive: the mask is {mask.dtype}; give numbers that are added to the scores, "
            "or hs.dense(mask) for booleans."
        )
    allowed, added = split(mask)
    return dense(allowed), None if added is None else dense_bias(added)


def from_block_mask(mask: BlockMask) -> Mask:
    """The mask of torch's FlexAttention as runs of keys, from its own function.

    Example:
        >>> from torch.nn.attention.flex_attention import create_block_mask
        >>> blocks = create_block_mask(lambda b, h, q, k: q >= k, None, None, 2, 2, device="cpu")
        >>> from_block_mask(blocks).to_dense(2, 2).int().squeeze().tolist()
        [[1, 0], [1, 1]]
    """
    return Intervals(read_block_mask(mask), mask.seq_lengths[1])


def from_torch_mha_mask(
    attn_mask: Shaped[Tensor, "*sizes"] | None = None,
    key_padding_mask: Shaped[Tensor, "b k"] | None = None,
    num_heads: int | None = None,
) -> Mask:
    """The two masks of `torch.nn.MultiheadAttention`, whose True means that a query may NOT see a key.

    Args:
        attn_mask: as in torch: boolean, or numbers of which only 0 and minus infinity occur (while a graph is traced
            the numbers are not known, and that is not checked).
        key_padding_mask: as in torch: True for the keys that are padding; or numbers, 0 and minus infinity.
        num_heads: needed for an attn_mask of three axes, which holds one mask for every batch item and head.

    Shapes:
        attn_mask `(q, k)` or `(b · num_heads, q, k)`; key_padding_mask `(b, k)`.

    Raises:
        MaskError: no mask, other shapes, or numbers that say more than who may attend.

    Example:
        >>> hidden = torch.tensor([[False, True], [False, False]])
        >>> from_torch_mha_mask(hidden).to_dense(2, 2).int().squeeze().tolist()
        [[1, 0], [1, 1]]
    """
    parts = []
    if attn_mask is not None:
        allowed = visible("attn_mask", attn_mask)
        if allowed.ndim == 3:
            if not num_heads or len(allowed) % num_heads:
                raise MaskError(
                    f"from_torch_mha_mask: attn_mask is {tuple(allowed.shape)} and num_heads={num_heads}; "
                    "its first axis is batch x num_heads."
                )
            allowed = allowed.view(len(allowed) // num_heads, num_heads, *allowed.shape[1:])
        elif allowed.ndim != 2:
            raise MaskError(
                f"from_torch_mha_mask: attn_mask is {tuple(allowed.shape)}; "
                "give (queries, keys) or (batch x num_heads, queries, keys)."
            )
        parts.append(dense(allowed))
    if key_padding_mask is not None:
        if key_padding_mask.ndim != 2:
            raise MaskError(
                f"from_torch_mha_mask: key_padding_mask is {tuple(key_padding_mask.shape)}; give (batch, keys)."
            )
        parts.append(dense(visible("key_padding_mask", key_padding_mask)[:, None, None]))
    if not parts:
        raise MaskError(
            "from_torch_mha_mask: neither attn_mask nor key_padding_mask was given; without a mask pass mask=None."
        )
    return parts[0] if len(parts) == 1 else parts[0] & parts[1]


def visible(name: str, mask: Tensor) -> Tensor:
    """Torch's inverted mask, or its additive one, as "may attend"."""
    if mask.dtype == torch.bool:
        return ~mask
    if mask.is_floating_point() and (not known(mask) or bool(((mask == 0) | mask.isneginf()).all())):
        return mask == 0
    raise MaskError(
        f"from_torch_mha_mask: {name} is {mask.dtype} and holds other numbers than 0 and minus infinity; "
        "give booleans (True: may not attend), or take hs.from_additive(mask), which gives a mask and a bias."
    )
