"""Runs of keys to and from torch's `BlockMask`, the mask of FlexAttention."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headscope.attention.masks.runs import Runs, concatenate, from_dense

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

# FlexAttention's own size of a block.
BLOCK = 128


def may_see(runs: Runs) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The function of (item, head, query, key) that FlexAttention asks: may this query see this key?"""
    start, stop = runs
    items, heads, queries, columns = start.shape

    def mask_mod(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        b, h, q = (
            index if size > 1 else index * 0 for index, size in zip((b, h, q), (items, heads, queries), strict=True)
        )
        seen = (k >= start[b, h, q, 0]) & (k < stop[b, h, q, 0])
        for r in range(1, columns):
            seen = seen | ((k >= start[b, h, q, r]) & (k < stop[b, h, q, r]))
        return seen

    return mask_mod


def block_mask(runs: Runs, queries: int, keys: int) -> BlockMask:
    """The block mask of some runs: which blocks of 128 x 128 are whole, partly seen or empty, all without a matrix."""
    from torch.nn.attention.flex_attention import BlockMask

    start, stop = (side.expand(-1, -1, queries, -1) for side in runs)
    rows, columns = -(-queries // BLOCK), -(-keys // BLOCK)
    lead = start.shape[:2]
    # How many keys of each block of keys every query sees, one run at a time; then summed over the queries of a block.
    first = torch.arange(columns, device=start.device, dtype=torch.int32) * BLOCK
    last = (first + BLOCK).clamp(max=keys)
    seen = torch.zeros(*lead, rows, columns, dtype=torch.int64, device=start.device)
    for row in range(rows):
        block = slice(row * BLOCK, min((row + 1) * BLOCK, queries))
        a, b = start[:, :, block, :, None], stop[:, :, block, :, None]
        seen[:, :, row] = (torch.minimum(b, last) - torch.maximum(a, first)).clamp(min=0).sum((2, 3))
    heights = (torch.full((rows,), BLOCK, device=start.device)).clamp(max=queries)
    heights[-1] = queries - (rows - 1) * BLOCK
    # A block at the edge counts as whole only where nothing is cut off: FlexAttention asks about the rest itself.
    whole = (seen == heights[:, None] * (last - first)) & (heights == BLOCK)[:, None] & (last - first == BLOCK)
    partial = (seen > 0) & ~whole
    return BlockMask.from_kv_blocks(
        *ordered(partial),
        *ordered(whole),
        BLOCK_SIZE=(BLOCK, BLOCK),
        mask_mod=may_see(runs),
        seq_lengths=(queries, keys),
    )


def ordered(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of blocks how many are chosen, and their columns, chosen ones first."""
    return chosen.sum(-1, dtype=torch.int32), (~chosen).to(torch.int8).argsort(dim=-1, stable=True).int()


def read_block_mask(block_mask: BlockMask) -> Runs:
    """The runs of a block mask, from its own function, a block of rows at a time."""
    items, heads = block_mask.kv_num_blocks.shape[:2]
    queries, keys = block_mask.seq_lengths
    device = block_mask.kv_num_blocks.device
    b, h = (torch.arange(n, device=device) for n in (items, heads))
    k = torch.arange(keys, device=device)
    parts = []
    for first in range(0, queries, BLOCK):
        q = torch.arange(first, min(first + BLOCK, queries), device=device)
        seen = block_mask.mask_mod(
            b[:, None, None, None], h[None, :, None, None], q[None, None, :, None], k[None, None, None]
        )
        parts.append(from_dense(seen.expand(items, heads, len(q), keys)))
    return concatenate(parts, [part.start.shape[2] for part in parts])
