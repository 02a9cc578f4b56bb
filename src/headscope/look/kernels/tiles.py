"""The scores of one attention call, a cache-sized block of all keys at a time.

Everything that is not linear in the weights (top keys, maxima), and whatever is asked for together, walks over these
blocks. A block is made in place in one buffer, so that nothing of size queries x keys ever exists.

In a block the keys of one cell of a map stand far apart, as `cell_order` has them: pooling over them then adds and
compares whole vectors of keys. Scores are in base 2: exp2 is as fast for weights that vanish as for any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from headscope.attention.masks.runs import Runs
from headscope.attention.request import Request
from headscope.shapes import acc_dtype

# Scores in one block: 4 MB of float32 for each thread, as long as that is no more memory than 64 MB; a GPU wants more.
# Smaller ones stay in a core's own cache and are slower: every statistic costs a few calls for each block.
CPU_BLOCK, CPU_MOST, GPU_BLOCK = 2**20, 2**24, 2**26
# Below this a matrix product runs at a fraction of its speed, so longer rows make larger blocks.
LEAST_ROWS = 32
# From this many keys on a product with few rows is faster when the keys lie along the last axis.
LONG = 1024
# Queries of a block under a mask: of a larger one half the pairs may be hidden.
MASKED_ROWS = 128
# The score of a key that a query may not see. Finite, so that 0 · LOW is 0; no sum of real scores comes near it.
LOW = -1e30
# Above this many runs for each query a block is masked by counting openings and closings.
FEW_RUNS = 4
LOG2_E = 1.4426950408889634
# A side of the runs of every query, or its limits.
Side = TypeVar("Side", Tensor, np.ndarray)


class Tile(NamedTuple):
    """Scores of consecutive queries of some (batch item, head) pairs against the keys that any of them may see.

    Attributes:
        items: which of the flattened `b · h` pairs.
        rows: which queries.
        height: how many queries a cell has in this block; all cells of a block are equally high.
        first: the first key; the last is `first + scores.shape[2] - 1`, and may lie behind the real keys.
        scores: in base 2, softcap and bias included; `LOW` where a query may not see a key. The buffer is used again.
        spare: a second buffer of the same shape.
    """

    items: slice
    rows: slice
    height: int
    first: int
    scores: Float[Tensor, "n rows keys"]
    spare: Float[Tensor, "n rows keys"]


def wide(tensor: Tensor) -> Tensor:
    """float32, or float64 for float64: statistics are never computed in less."""
    return tensor.to(acc_dtype(tensor.dtype))


def walk(request: Request, *, unit: int = 1, cells: tuple[int, int] = (1, 1)) -> Iterator[Tile]:
    """All blocks of an attention call, in order of items and rows.

    Keys are taken in whole units: the first key of a block and its number of keys are multiples of `unit`. A block has
    whole cells of queries, or a part of one cell. A block in which no query sees any key has no keys.

    Args:
        cells: queries and keys in one cell; a unit has whole cells of keys.
    """
    b, h, queries, d = request.q.shape
    height, width = cells
    keys, padded = request.k.shape[2], -(-request.k.shape[2] // unit) * unit
    count, step = block_shape(b * h, queries, padded, request)
    blocks = list(row_blocks(queries, step, height))
    q = request.q.detach().reshape(b * h, queries, d)
    k = request.k.detach().flatten(0, 1)
    limits = Limits(request) if request.mask is not None else None
    group = torch.arange(b * h) // (h // request.k.shape[1])
    most = max((rows.stop - rows.start for rows, _ in blocks), default=0)
    buffers = torch.empty(2, min(count, b * h) * most * padded, dtype=wide(q[:0]).dtype, device=q.device)
    for item in range(0, b * h, count):
        items = slice(item, min(item + count, b * h))
        n = items.stop - items.start
        asked = wide(q[items])
        chosen = wide(k[group[items].to(k.device)] if n > 1 else k[int(group[item])][None])
        if padded > keys:
            chosen = torch.nn.functional.pad(chosen, (0, 0, 0, padded - keys))
        factor = KeyFactor(chosen, width)
        for rows, cell in blocks:
            first, last = (0, padded) if limits is None else limits.range(items, rows, unit, padded)
            size = (n, rows.stop - rows.start, last - first)
            scores, spare = (part[: n * size[1] * size[2]].view(size) for part in buffers)
            if last > first:
                product = scores, asked[:, rows], factor.between(first, last)
                torch.baddbmm(*product, beta=0, alpha=request.scale * LOG2_E, out=scores)
                finish(scores, request, items, rows, first, min(last, keys), width, limits)
            yield Tile(items, rows, cell, first, scores, spare)


class KeyFactor:
    """The keys of some heads as the second factor of the scores, those of a cell far apart."""

    def __init__(self, k: Float[Tensor, "n keys d"], width: int) -> None:
        self.k, self.width = k, width
        self.every: Tensor | None = None

    def between(self, first: int, last: int) -> Float[Tensor, "n d keys"]:
        """The keys `first … last - 1`, in the order of a block that has these."""
        if self.width > 1 and last - first < self.k.shape[1]:
            return cell_order(self.k[:, first:last], self.width).transpose(1, 2)
        if self.every is None:
            self.every = cell_order(self.k, self.width).transpose(1, 2)
            if self.k.shape[1] >= LONG:
                self.every = self.every[0].contiguous()[None] if len(self.k) == 1 else self.every.contiguous()
        return self.every[..., first:last]


def cell_order(x: Shaped[Tensor, "n keys *rest"], width: int) -> Shaped[Tensor, "n keys *rest"]:
    """Keys as a block has them: the first of every cell, then the second of every cell, …"""
    return x if width == 1 else x.reshape(len(x), -1, width, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


def key_order(x: Shaped[Tensor, "n keys *rest"], width: int) -> Shaped[Tensor, "n keys *rest"]:
    """What belongs to the keys of a block in the order of the keys, the inverse of `cell_order`."""
    return x if width == 1 else x.reshape(len(x), width, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


def block_shape(items: int, queries: int, keys: int, request: Request) -> tuple[int, int]:
    """How many (batch item, head) pairs and how many queries make a block."""
    on_cpu = request.q.device.type == "cpu"
    block = min(CPU_BLOCK * torch.get_num_threads(), CPU_MOST) if on_cpu else GPU_BLOCK
    step = max(min(queries, LEAST_ROWS), min(queries, block // max(1, keys)), 1)
    if on_cpu and request.mask is not None:
        step = min(step, MASKED_ROWS)
    return max(1, min(items, block // max(1, step * keys))), step


def row_blocks(queries: int, step: int, height: int) -> Iterator[tuple[slice, int]]:
    """The queries of every block, and how many of them make a cell: whole cells, or a part of one."""
    if step < height:
        for cell in range(0, queries, height):
            end = min(cell + height, queries)
            for first in range(cell, end, step):
                last = min(first + step, end)
                yield slice(first, last), last - first
        return
    whole, step = queries // height * height, step // height * height
    for first in range(0, whole, step):
        yield slice(first, min(first + step, whole)), height
    if whole < queries:
        yield slice(whole, queries), queries - whole


def finish(
    scores: Tensor,
    request: Request,
    items: slice,
    rows: slice,
    first: int,
    last: int,
    width: int,
    limits: Limits | None,
) -> None:
    """Softcap, bias and mask, in place, as `paths/formula.py` says them, of scores in base 2.

    Args:
        first, last: the real keys of the block are `first … last - 1`.
        width: keys in a cell.
    """
    if request.softcap is not None:
        scores.div_(request.softcap * LOG2_E).tanh_().mul_(request.softcap * LOG2_E)
    behind = scores.shape[2] - (last - first)
    if request.bias is not None:
        block = bias_block(request, items, rows, first, last)
        if block.shape[2] > 1:
            block = torch.nn.functional.pad(block, (0, behind))
            block = cell_order(block.transpose(1, 2), width).transpose(1, 2)
        scores.add_(block, alpha=LOG2_E)
        scores.clamp_(min=LOW)
    if limits is not None:
        limits.apply(scores, items, rows, first, width)
    elif behind:
        cells, rest = divmod(last - first, width)
        parts = scores.view(*scores.shape[:2], width, -1)
        parts[:, :, rest:, cells] = LOW
        parts[..., cells + 1 :] = LOW


def bias_block(request: Request, items: slice, rows: slice, first: int, last: int) -> Tensor:
    """The bias of some (batch item, head) pairs, `(n, rows, keys)` or with axes of 1."""
    b, h = request.q.shape[:2]
    block = added(request, rows, first, last)
    assert block is not None
    block = block.detach()
    if block.shape[:2] == (1, 1):
        return block[0]
    return block.expand(b, h, *block.shape[2:]).flatten(0, 1)[items]


def added(request: Request, rows: slice, first: int, last: int) -> Float[Tensor, "b h rows keys"] | None:
    """The bias of some queries and keys as scores take it: on their device and in their dtype; axes of 1 are shared."""
    if request.bias is None:
        return None
    block = request.bias.block(rows, first, last, request.q.shape[2], request.k.shape[2])
    return block.to(request.q.device, wide(request.q[:0]).dtype)


class Limits:
    """The mask of an attention call, as the blocks need it."""

    def __init__(self, request: Request) -> None:
        assert request.mask is not None
        b, h, queries, _ = request.q.shape
        self.keys = request.k.shape[2]
        runs = request.runs()
        assert runs is not None
        # One set of runs for everyone stays one: only what differs between items is written out.
        shared = runs.start.shape[:2] == (1, 1)
        self.start, self.stop = (
            side.expand(1 if shared else b, 1 if shared else h, queries, -1).flatten(0, 1) for side in runs
        )
        self.shared = shared
        empty = self.stop <= self.start
        # Limits of blocks are a few numbers each, which numpy finds in a third of the time.
        self.low = self.start.masked_fill(empty, self.keys).amin(-1).cpu().numpy()
        self.high = self.stop.masked_fill(empty, 0).amax(-1).cpu().numpy()
        self.orders: dict[int, Tensor] = {}

    def pick(self, side: Side, items: slice, rows: slice) -> Side:
        """One side of the runs, or of their limits, for a block."""
        return side[:, rows] if self.shared else side[items, rows]

    def range(self, items: slice, rows: slice, unit: int, padded: int) -> tuple[int, int]:
        """The keys that any query of a block may see, in whole units."""
        first = int(self.pick(self.low, items, rows).min())
        last = int(self.pick(self.high, items, rows).max())
        if last <= first:
            return 0, 0
        return first // unit * unit, min(-(-last // unit) * unit, padded)

    def apply(self, scores: Tensor, items: slice, rows: slice, first: int, width: int) -> None:
        """Fill in `LOW` where a query may not see a key; cells have `width` keys."""
        start, stop = self.pick(self.start, items, rows), self.pick(self.stop, items, rows)
        keys = scores.shape[2]
        if start.shape[-1] > FEW_RUNS:
            seen = allowed(start, stop, first, first + keys).transpose(1, 2)
            scores.masked_fill_(~cell_order(seen, width).transpose(1, 2), LOW)
            return
        if keys not in self.orders:
            order = torch.arange(keys, device=scores.device, dtype=torch.int32)
            self.orders[keys] = cell_order(order[None], width)[0]
        key, start, stop = self.orders[keys], start - first, stop - first
        if start.shape[-1] > 1:
            runs = [(key >= start[..., run, None]) & (key < stop[..., run, None]) for run in range(start.shape[-1])]
            scores.masked_fill_(~torch.stack(runs).any(0), LOW)
            return
        # One run: between the last start and the first stop every query sees every key, so only the edges are filled.
        low, high = self.pick(self.low, items, rows), self.pick(self.high, items, rows)
        left = min(max(int(low.max()) - first, 0), keys)
        right = min(max(int(high.min()) - first, 0), keys)
        if right < left:
            scores.masked_fill_((key < start) | (key >= stop), LOW)
            return
        cells, key = scores.view(*scores.shape[:2], width, -1), key.view(width, -1)
        left, right = -(-left // width), right // width
        if left:
            cells[..., :left].masked_fill_(key[:, :left] < start[..., None], LOW)
        if right < cells.shape[3]:
            cells[..., right:].masked_fill_(key[:, right:] >= stop[..., None], LOW)


def allowed(start: Tensor, stop: Tensor, first: int, last: int) -> Bool[Tensor, "n rows keys"]:
    """Who may see whom, written out for a block of keys."""
    if start.shape[-1] <= FEW_RUNS:
        return Runs(start[None], stop[None]).block(slice(None), first, last)[0]
    steps = torch.zeros(*start.shape[:2], last - first + 1, dtype=torch.int32, device=start.device)
    one = torch.ones_like(start)
    for side, sign in ((start, 1), (stop, -1)):
        steps.scatter_add_(-1, (side - first).clamp(0, last - first).long(), one * sign)
    return steps[..., :-1].cumsum(-1) > 0
