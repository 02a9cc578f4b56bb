"""One head's weights pooled into cells, a cache-sized block of scores at a time.

A block lies with its keys along the first axis, so that the pooling over keys, the longest part of the work, adds and
compares whole vectors of queries. Scores are in base 2: exp2 is as fast for weights that vanish as for any other.

The softmax needs no second pass: the exponentials of a block are pooled over keys as they are, and divided by their
queries' sums when all keys have been seen; only then are they pooled over queries.

Source: the running maximum and sum are the online softmax of Milakov & Gimelshein 2018.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headscope.attention.request import Request
from headscope.look.kernels.tiles import LOG2_E, LOW, Limits, allowed, bias_block, wide

# Queries in a block, and scores in a block for each thread: 1 MB of float32, which stays in a core's own cache.
ROWS, BLOCK = 256, 2**18
# Exponentials within 2 to the power of this neither overflow nor lose digits, in float32 too.
SPAN = 50.0
LARGEST_CELL = 256


class Pooled(NamedTuple):
    """The weights of one head in cells, and what its queries' sums say.

    Shapes:
        lse, entropy, peak `(q,)`; mean, max, seen `(rows, columns)`, one for each cell.

    Attributes:
        entropy: in nats; None where it was not asked for.
        peak: the largest weight of each query.
        mean: over all weights of a cell; those that the mask forbids count as 0.
        seen: whether any query of a cell may see any key of it.
    """

    lse: Float[Tensor, " q"]
    entropy: Float[Tensor, " q"] | None
    peak: Float[Tensor, " q"]
    mean: Float[Tensor, "rows columns"]
    max: Float[Tensor, "rows columns"]
    seen: Bool[Tensor, "rows columns"]


def pool(
    request: Request,
    height: int,
    width: int,
    *,
    lse: Float[Tensor, " q"] | None = None,
    entropy: bool = False,
    between: Callable[[], None] = lambda: None,
) -> Pooled:
    """The weights of one head, pooled into cells of `height` queries and `width` keys, in one pass; exact.

    Args:
        request: of one batch item and one head.
        height, width: powers of two, at most 256.
        lse: that of the queries over all keys, where the request has only some of them.
        entropy: whether to find it, which needs all keys.
        between: called between blocks; what it raises ends the pass.
    """
    queries, keys = request.q.shape[2], request.k.shape[2]
    like = wide(request.q[0, 0, :0, :0].detach())
    totals, spread, peak = (like.new_zeros(queries) for _ in range(3))
    size = (-(-queries // height), -(-keys // width))
    mean, largest = like.new_zeros(size), like.new_full(size, -1.0)
    blocks = Blocks(request, width)
    with torch.no_grad():
        for first in range(0, queries, ROWS):
            between()
            rows = slice(first, min(first + ROWS, queries))
            left, right = blocks.range(rows)
            sums = Sums(blocks, rows, (left, right), None if lse is None else lse[rows], entropy)
            for key, scores in blocks.of(rows, left, right):
                between()
                sums.take(key, scores)
            totals[rows], spread[rows], peak[rows] = sums.finish()
            cells = slice(first // height, -(-rows.stop // height)), slice(left // width, right // width)
            mean[cells], largest[cells] = sums.over_queries(height)
        mean /= extents(queries, height, like)[:, None] * extents(keys, width, like)
    seen = largest >= 0
    return Pooled(totals, spread if entropy else None, peak, mean, largest.clamp_(min=0.0), seen)


class Blocks:
    """The scores of one head in blocks of some queries and some keys."""

    def __init__(self, request: Request, width: int) -> None:
        self.request, self.width = request, width
        self.q, self.k = request.q[0, 0].detach(), request.k[0, 0].detach()
        self.keys = len(self.k)
        self.limits = None if request.mask is None else Limits(request)
        self.step = max(BLOCK * torch.get_num_threads() // ROWS // width, 1) * width
        self.buffers = wide(self.q[:0, :0]).new_empty(2, self.step * ROWS)
        self.pools = self.buffers.new_empty(2, 0)

    def pooled(self, cells: int, rows: int) -> Tensor:
        """A buffer for the pooled sums and maxima of a block of queries, `(2, cells, rows)`; blocks share it."""
        if self.pools.shape[1] < cells * rows:
            self.pools = self.buffers.new_empty(2, cells * rows)
        return self.pools[:, : cells * rows].view(2, cells, rows)

    def range(self, rows: slice) -> tuple[int, int]:
        """The keys that any of some queries may see, in whole cells."""
        padded = -(-self.keys // self.width) * self.width
        return (0, padded) if self.limits is None else self.limits.range(slice(0, 1), rows, self.width, padded)

    def of(self, rows: slice, left: int, right: int) -> Iterator[tuple[int, Float[Tensor, "keys rows"]]]:
        """Blocks of scores in base 2, `LOW` where hidden and behind the last key, each with its first key.

        A block in which no query sees any key is left out. The buffer is used again.
        """
        asked = (wide(self.q[rows]) * (self.request.scale * LOG2_E)).T
        for first in range(left, right, self.step):
            last = min(first + self.step, right)
            end = min(last, self.keys)
            if self.limits is not None and not self.any_seen(rows, first, end):
                continue
            scores = self.buffers[0, : (last - first) * asked.shape[1]].view(last - first, -1)
            torch.mm(wide(self.k[first:end]), asked, out=scores[: end - first])
            self.finish(scores[: end - first], rows, first, end)
            if last > end:
                scores[end - first :] = LOW
            yield first, scores

    def any_seen(self, rows: slice, first: int, end: int) -> bool:
        """Whether any of some queries sees any of the keys `first … end - 1`."""
        assert self.limits is not None
        start, stop = (self.limits.pick(side, slice(0, 1), rows) for side in (self.limits.start, self.limits.stop))
        return bool(((start < end) & (stop > first) & (stop > start)).any())

    def finish(self, scores: Tensor, rows: slice, first: int, end: int) -> None:
        """Softcap, bias and mask, in place, as `tiles.finish` has them."""
        request = self.request
        if request.softcap is not None:
            scores.div_(request.softcap * LOG2_E).tanh_().mul_(request.softcap * LOG2_E)
        if request.bias is not None:
            bias = bias_block(request, slice(0, 1), rows, first, end)[0].to(scores)
            scores.add_(bias.T, alpha=LOG2_E).clamp_(min=LOW)
        if self.limits is None:
            return
        start, stop = (self.limits.pick(side, slice(0, 1), rows)[0] for side in (self.limits.start, self.limits.stop))
        if start.shape[1] > 1:
            scores.masked_fill_(~allowed(start[None], stop[None], first, end)[0].T, LOW)
        elif int(start.max()) > first or int(stop.min()) < end or bool((stop <= start).any()):
            key = torch.arange(first, end, device=scores.device, dtype=torch.int32)[:, None]
            scores.masked_fill_((key < start.T) | (key >= stop.T), LOW)


class Sums:
    """The running sums of one block of queries: exponentials pooled over keys, `(cells, rows)`.

    An exponential is 2 to the power of a score minus its query's `shift`; a weight is an exponential times `factor`.
    """

    def __init__(self, blocks: Blocks, rows: slice, span: tuple[int, int], lse: Tensor | None, entropy: bool) -> None:
        self.request, self.width, self.left, self.spare = blocks.request, blocks.width, span[0], blocks.buffers[1]
        self.rows, like = rows.stop - rows.start, blocks.buffers
        cells = (span[1] - span[0]) // self.width
        pooled = blocks.pooled(cells, self.rows)
        self.sums, self.largest = pooled[0], pooled[1]
        self.done = 0
        self.known = None if lse is None else lse.to(like)
        self.shift = like.new_zeros(self.rows) if lse is None else lse.to(like).nan_to_num(neginf=0.0) * LOG2_E
        self.shifted = lse is not None
        self.moment = like.new_zeros(self.rows) if entropy else None
        self.begun = torch.zeros(self.rows, dtype=torch.bool, device=like.device)
        self.factor = like.new_ones(self.rows)

    def take(self, first: int, scores: Tensor) -> None:
        """Add one block of scores."""
        cells = slice((first - self.left) // self.width, (first - self.left + len(scores)) // self.width)
        self.leave_out(cells.start)
        parts = scores.view(-1, self.width, self.rows)
        peak = torch.amax(parts, 1, out=self.largest[cells]).amax(0)
        if self.known is None:
            self.lift(peak)
        if self.shifted:
            scores.sub_(self.shift)
        exponentials = self.spare[: scores.numel()].view_as(scores) if self.moment is not None else scores
        torch.exp2(scores, out=exponentials)
        torch.sum(exponentials.view_as(parts), 1, out=self.sums[cells])
        self.done = cells.stop
        if self.moment is not None:
            self.moment += scores.mul_(exponentials).sum(0)

    def leave_out(self, stop: int) -> None:
        """Fill in that nobody sees the cells up to one."""
        if stop > self.done:
            self.sums[self.done : stop] = 0.0
            self.largest[self.done : stop] = LOW
            self.done = stop

    def lift(self, peak: Tensor) -> None:
        """Shift the queries whose scores are out of reach of their shift; a first shift may also go down."""
        seen = peak > LOW / 2
        far = (peak - self.shift > SPAN) | (seen & ~self.begun & (peak < self.shift - SPAN))
        if bool(far.any()):
            new = torch.where(far, peak, self.shift)
            down = torch.where(self.begun, self.shift - new, 0.0)
            ratio = down.exp2()
            if self.moment is not None:
                # Σ e (s - shift), with e and the shift of before.
                self.moment = (self.moment + down * self.sums[: self.done].sum(0)) * ratio
            self.sums[: self.done] *= ratio
            self.shift, self.shifted = new, True
        self.begun |= seen

    def finish(self) -> tuple[Tensor, Tensor, Tensor]:
        """lse, entropy and peak of every query; from here on `factor` is known."""
        self.leave_out(len(self.sums))
        if self.known is not None:
            return self.known, self.known.new_zeros(()), self.peak()
        sink = self.request.sinks
        if sink is not None:
            self.lift((sink.detach().to(self.shift) * LOG2_E).expand(self.rows))
        below = total = self.sums.sum(0)
        if sink is not None:
            below = total + (sink.detach().to(total) * LOG2_E - self.shift).exp2()
        self.factor = below.reciprocal().masked_fill_(below == 0, 0.0)
        lse = torch.where(below > 0, (self.shift + below.log2()) / LOG2_E, -math.inf)
        entropy = total.new_zeros(())
        if self.moment is not None:
            share = total * self.factor
            entropy = torch.where(share > 0, (share * below.log2() - self.moment * self.factor) / LOG2_E, 0.0)
        return lse, entropy, self.peak()

    def peak(self) -> Tensor:
        """The largest weight of every query."""
        if not len(self.largest):
            return torch.zeros_like(self.factor)
        largest = self.largest.amax(0)
        return ((largest - self.shift).exp2() * self.factor).masked_fill_(largest <= LOW / 2, 0.0)

    def over_queries(self, height: int) -> tuple[Tensor, Tensor]:
        """Sums and maxima of weights in cells, `(query cells, key cells)`; the maximum is -1 where nobody sees any."""
        seen = self.largest > LOW / 2
        weights = self.largest.sub_(self.shift).exp2_().mul_(self.factor).masked_fill_(~seen, -1.0)
        padding = (0, -self.rows % height)
        sums = torch.nn.functional.pad(self.sums.mul_(self.factor), padding)
        weights = torch.nn.functional.pad(weights, padding, value=-1.0)
        cells = (len(sums), sums.shape[1] // height, height)
        return sums.view(cells).sum(2).T, weights.view(cells).amax(2).T


def extents(count: int, cell: int, like: Tensor) -> Float[Tensor, " cells"]:
    """How many of `count` positions each cell has: `cell`, but for the last."""
    first = torch.arange(0, count, cell, device=like.device)
    return (count - first).clamp(max=cell).to(like.dtype)
