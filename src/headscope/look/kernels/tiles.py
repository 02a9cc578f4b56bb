"""The scores of one attention call, a cache-sized block of whole rows at a time.

Everything that is not linear in the weights (top keys, maxima), and whatever is asked for together, walks over these
blocks. A block is made in place in one buffer, so that nothing of size queries x keys ever exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headscope.attention.masks.runs import Runs
from headscope.attention.request import Request

# Scores in one block: 8 MB of float32 stay close to the cores and are enough work for each; a GPU wants more.
CPU_BLOCK, GPU_BLOCK = 2**21, 2**26
# Below this a matrix product runs at a fraction of its speed, so longer rows make larger blocks.
LEAST_ROWS = 32
# The score of a key that a query may not see. Finite, so that 0 · LOW is 0; no sum of real scores comes near it.
LOW = -1e30
# Above this many runs for each query a block is masked by counting openings and closings.
FEW_RUNS = 4
LOG2_E = 1.4426950408889634


class Tile(NamedTuple):
    """Scores of consecutive queries of some (batch item, head) pairs against the keys that any of them may see.

    Attributes:
        items: which of the flattened `b · h` pairs.
        rows: which queries.
        number: the number of the block among those of its items; all but the last have `step` queries.
        first: the first key; the last is `first + scores.shape[2] - 1`, and may lie behind the real keys.
        scores: softcap and bias included; `LOW` where a query may not see a key. The buffer is used again.
        spare: a second buffer of the same shape.
        hides: whether some scores may be `LOW`.
    """

    items: slice
    rows: slice
    number: int
    step: int
    first: int
    scores: Float[Tensor, "n rows keys"]
    spare: Float[Tensor, "n rows keys"]
    hides: bool


def wide(tensor: Tensor) -> Tensor:
    """float32, or float64 for float64: statistics are never computed in less."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def walk(request: Request, *, unit: int = 1, height: int = 1) -> Iterator[Tile]:
    """All blocks of an attention call, in order of items and rows.

    Keys are taken in whole units: the first key of a block and its number of keys are multiples of `unit`; a block has
    a multiple of `height` queries where it has as many. A block in which no query sees any key has no keys.
    """
    b, h, queries, d = request.q.shape
    keys, padded = request.k.shape[2], -(-request.k.shape[2] // unit) * unit
    q = request.q.detach().reshape(b * h, queries, d)
    k = request.k.detach().flatten(0, 1)
    group = torch.arange(b * h) // (h // request.k.shape[1])
    limits = Limits(request) if request.mask is not None else None
    count, step = block_shape(b * h, queries, padded, height, q.device)
    buffers = torch.empty(2, min(count, b * h) * step * padded, dtype=wide(q[:0]).dtype, device=q.device)
    views: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}
    for item in range(0, b * h, count):
        items = slice(item, min(item + count, b * h))
        n = items.stop - items.start
        # The scale goes into the small factor, and the other one lies as a product of matrices reads it.
        asked = torch.split(wide(q[items]) * request.scale, step, dim=1) if queries else ()
        chosen = wide(k[group[items].to(k.device)] if n > 1 else k[int(group[item])][None])
        chosen = torch.nn.functional.pad(chosen, (0, 0, 0, padded - keys)).transpose(1, 2).contiguous()
        for index, some in enumerate(asked):
            rows = slice(index * step, index * step + some.shape[1])
            first, last = (0, padded) if limits is None else limits.range(items, rows, unit, padded)
            size = (n, some.shape[1], last - first)
            if size not in views:
                views[size] = tuple(part[: n * size[1] * size[2]].view(size) for part in buffers)
            scores, spare = views[size]
            hides = False
            if last > first:
                torch.bmm(some, chosen if last - first == padded else chosen[:, :, first:last], out=scores)
                hides = finish(scores, request, items, rows, first, min(last, keys), limits)
            yield Tile(items, rows, index, step, first, scores, spare, hides)


def block_shape(items: int, queries: int, keys: int, height: int, device: torch.device) -> tuple[int, int]:
    """How many (batch item, head) pairs and how many queries make a block."""
    block = CPU_BLOCK if device.type == "cpu" else GPU_BLOCK
    step = max(min(queries, LEAST_ROWS), min(queries, block // max(1, keys)), 1)
    if step < queries:
        return 1, step // height * height or step
    return max(1, min(items, block // max(1, queries * keys))), step


def exponentials(scores: Tensor, out: Tensor, *, quick: bool) -> Tensor:
    """e to the scores; `quick` where none of them is so low that the result is 0 or denormal.

    On a CPU torch's exp takes a hundred times as long for such a number as for any other, and exp2 does not care.
    """
    return torch.exp(scores, out=out) if quick or scores.is_cuda else torch.mul(scores, LOG2_E, out=out).exp2_()


def finish(
    scores: Tensor, request: Request, items: slice, rows: slice, first: int, last: int, limits: Limits | None
) -> bool:
    """Softcap, bias and mask, in place, as `paths/formula.py` says them; whether some scores may be `LOW` now."""
    if request.softcap is not None:
        scores.div_(request.softcap).tanh_().mul_(request.softcap)
    if request.bias is not None:
        scores[..., : last - first] += bias_block(request, items, rows, first, last)
        scores.clamp_(min=LOW)
    if limits is not None:
        return limits.apply(scores, items, rows, first) or request.bias is not None
    if scores.shape[2] > last - first:
        scores[..., last - first :] = LOW
    return scores.shape[2] > last - first or request.bias is not None


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
        self.low = self.start.masked_fill(empty, self.keys).amin(-1).cpu()
        self.high = self.stop.masked_fill(empty, 0).amax(-1).cpu()

    def pick(self, side: Tensor, items: slice, rows: slice) -> Tensor:
        """One side of the runs, or of their limits, for a block."""
        return side[:, rows] if self.shared else side[items, rows]

    def range(self, items: slice, rows: slice, unit: int, padded: int) -> tuple[int, int]:
        """The keys that any query of a block may see, in whole units."""
        first = int(self.pick(self.low, items, rows).min())
        last = int(self.pick(self.high, items, rows).max())
        if last <= first:
            return 0, 0
        return first // unit * unit, min(-(-last // unit) * unit, padded)

    def apply(self, scores: Tensor, items: slice, rows: slice, first: int) -> bool:
        """Fill in `LOW` where a query may not see a key; whether there may be such."""
        start, stop = self.pick(self.start, items, rows), self.pick(self.stop, items, rows)
        width = scores.shape[2]
        if start.shape[-1] > 1:
            scores.masked_fill_(~allowed(start, stop, first, first + width), LOW)
            return True
        # One run: between the last start and the first stop every query sees every key, so only the edges are filled.
        low, high = self.pick(self.low, items, rows), self.pick(self.high, items, rows)
        left = min(max(int(low.max()) - first, 0), width)
        right = min(max(int(high.min()) - first, 0), width)
        key = torch.arange(first, first + width, device=scores.device, dtype=torch.int32)
        if right < left:
            scores.masked_fill_((key < start) | (key >= stop), LOW)
            return True
        scores[..., :left].masked_fill_(key[:left] < start, LOW)
        scores[..., right:].masked_fill_(key[right:] >= stop, LOW)
        return left > 0 or right < width


def allowed(start: Tensor, stop: Tensor, first: int, last: int) -> Bool[Tensor, "n rows keys"]:
    """Who may see whom, written out for a block of keys."""
    if start.shape[-1] <= FEW_RUNS:
        return Runs(start[None], stop[None]).block(slice(None), first, last)[0]
    steps = torch.zeros(*start.shape[:2], last - first + 1, dtype=torch.int32, device=start.device)
    one = torch.ones_like(start)
    for side, sign in ((start, 1), (stop, -1)):
        steps.scatter_add_(-1, (side - first).clamp(0, last - first).long(), one * sign)
    return steps[..., :-1].cumsum(-1) > 0
