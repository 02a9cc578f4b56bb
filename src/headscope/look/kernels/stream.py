"""Everything that is asked of an attention call's weights, in one pass over blocks of its scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from headscope.attention.request import Request
from headscope.look.kernels import gpu_pass
from headscope.look.kernels.ask import Ask, Seen
from headscope.look.kernels.largest import FEW_THREADS, Largest, filled, pool_sizes
from headscope.look.kernels.picture_cells import PictureCells
from headscope.look.kernels.tiles import LOG2_E, LOW, Tile, key_order, walk, wide
from headscope.look.progress import progress

# While every row's largest score, in base 2, stays within this, exp2 needs no shift: nothing overflows or vanishes, and
# the entropy, a difference of numbers of this size, keeps its digits.
SAFE = 14.0


def stream(request: Request, ask: Ask) -> Seen:
    """One pass over all weights that yields everything asked for at once. O(N) memory; no gradients.

    Source: the row maximum and sum are the softmax of Milakov & Gimelshein 2018; the rest are its by-products.
    """
    if request.device.kind == "cuda" and not gpu_pass.refusals(request, ask):
        return gpu_pass.run(request, ask)
    one = Pass(request, ask)
    b, h, queries, _ = request.q.shape
    with torch.no_grad(), progress("looking", b * h * queries) as advance:
        for tile in walk(request, unit=one.sizes[-1], cells=(one.height, one.width)):
            one.take(tile)
            advance((tile.items.stop - tile.items.start) * (tile.rows.stop - tile.rows.start))
        return one.result()


class Pass:
    """The running sums of one pass.

    A block adds only what needs its weights; what can be made from a query's sums is made once, in `result`. With E
    2 to the power of a query's scores minus its `shift`, its weights are E / `below`, its lse in base 2 is `shift` +
    log2 `below`.
    """

    def __init__(self, request: Request, ask: Ask) -> None:
        self.request, self.ask = request, ask
        self.b, self.h, self.queries, _ = request.q.shape
        self.n, self.keys = self.b * self.h, request.k.shape[2]
        self.height, self.width = ask.cells if ask.maps else (1, 1)
        # Keys in the pools whose maxima are found, in rising order; the first are the scores themselves.
        self.sizes = [1, *(size for size in self.pool_sizes() if size > 1)]
        like = wide(request.q.detach().reshape(-1)[:0])
        self.sinks = None if request.sinks is None else request.sinks.detach().to(like).mul(LOG2_E).repeat(self.b)
        names = ["shift", "total", *(name for name in ("entropy", "concentration", "peak") if getattr(ask, name))]
        self.sums = {name: like.new_zeros(self.n, self.queries) for name in names}
        self.sums["below"] = self.sums["total"]
        if self.sinks is not None:
            self.sums["below"] = self.sinks.exp2()[:, None].repeat(1, self.queries)
        pools = -(-self.keys // self.sizes[-1]) * self.sizes[-1]
        count = 0 if ask.mix is None else len(ask.mix)
        self.received = like.new_zeros(self.n, pools, dtype=torch.float64) if ask.received else None
        self.mixed = None if ask.mix is None else like.new_zeros(self.n, count, pools, dtype=torch.float64)
        size = (self.n, -(-self.queries // self.height), pools // self.width)
        self.mean_map = like.new_zeros(size) if ask.mean_map else None
        self.max_map = like.new_zeros(size) if ask.max_map else None
        self.top = like.new_full((self.n, self.queries, ask.top), LOW) if ask.top else None
        assert self.width == 1 or (ask.picture is None and ask.candidates is None)
        size_of_head = self.n, self.queries, self.keys
        self.picture = None if ask.picture is None else PictureCells(ask.picture, *size_of_head, like)
        self.candidates = None
        if ask.candidates is not None:
            self.sums["best"] = like.new_zeros(self.n, self.queries)
            start, stop = (side.to(like.device) for side in (ask.candidates.start, ask.candidates.stop))
            self.candidates = ask.candidates.keys.to(like), start, stop
        self.find_largest = Largest(like.device)
        self.top_keys = torch.zeros(self.n, self.queries, ask.top, dtype=torch.int64, device=like.device)

    def pool_sizes(self) -> list[int]:
        """How many keys the pools have whose maxima are needed."""
        if self.ask.top:
            return pool_sizes(self.width if self.ask.maps else None)
        return [self.width]

    def take(self, tile: Tile) -> None:
        """Add one block of scores to the running sums."""
        if not tile.scores.shape[2]:
            return
        scores, at = tile.scores, (tile.items, tile.rows)
        levels = self.maxima(scores)
        peak = levels[-1].amax(2)
        safe = not scores.is_cuda and all(abs(float(end)) < SAFE for end in peak.aminmax())
        if not safe:
            # A query that sees nothing keeps a shift of 0, so that its exponentials are 0.
            shift = peak.masked_fill(peak < LOW / 2, 0.0)
            self.sums["shift"][at] = shift
            scores.sub_(shift[..., None])
            peak = peak - shift
        if self.top is not None:
            self.largest(tile, levels)
        # In place, where the scores are not needed beside them: one buffer leaves more of the cache.
        needed = self.ask.entropy or (self.ask.max_map and self.width == 1)
        exps, other = (tile.spare, scores) if needed else (scores, tile.spare)
        torch.exp2(scores, out=exps)
        pooled = over_keys(exps, self.width, torch.add, torch.sum) if self.mean_map is not None else exps
        below = total = pooled.sum(2)
        self.sums["total"][at] = total
        if self.sinks is not None:
            below = total + torch.exp2(self.sinks[tile.items, None] - self.sums["shift"][at])
            self.sums["below"][at] = below
        factor = below.reciprocal()
        if not safe:
            factor.masked_fill_(below == 0, 0.0)
        self.columns(tile, exps, factor)
        if self.mean_map is not None:
            self.mean_of_cells(tile, pooled, factor)
        if self.max_map is not None:
            lse = below.log2().masked_fill_(below == 0, 0.0)
            # Maxima of more than one key are numbers of their own, that the shift has not reached.
            lse = lse if safe or self.width == 1 else lse + shift
            self.largest_in_cells(tile, levels[self.sizes.index(self.width)], lse)
        # The moments come last, since they write over the scores, and peak over the exponentials.
        if self.ask.entropy:
            self.sums["entropy"][at] = inner(scores, exps, other)
        if self.ask.concentration:
            self.sums["concentration"][at] = inner(exps, exps, other)
        if self.picture is not None or self.candidates is not None:
            self.of_weights(tile, torch.mul(exps, factor[..., None], out=other))
        if self.ask.peak:
            self.sums["peak"][at] = self.peak(tile, exps, peak)

    def maxima(self, scores: Tensor) -> list[Tensor]:
        """The maxima over pools of keys, each level from the one below; the lowest are the scores."""
        levels = [scores]
        for below, size in itertools.pairwise(self.sizes):
            levels.append(over_keys(levels[-1], size // below, torch.maximum, torch.amax))
        return levels

    def largest(self, tile: Tile, levels: list[Tensor]) -> None:
        """Keep the largest scores of every query of a block; a block has all its keys."""
        assert self.top is not None
        keys = tile.scores.shape[2]
        count = min(self.ask.top, keys)
        scores, places = self.find_largest(levels, count)
        if self.width > 1:
            # The keys of a cell are to a block what the parts of a pool are, the other way round.
            places = self.find_largest.below(self.width, keys).flatten().take(places)
        self.top[tile.items, tile.rows, :count] = scores
        self.top_keys[tile.items, tile.rows, :count] = places.add_(tile.first)

    def peak(self, tile: Tile, exps: Tensor, peak: Tensor) -> Tensor:
        """The largest exponential of every query, of the keys that are not left out."""
        if self.ask.leave_out is None:
            return peak.exp2()
        out = self.ask.leave_out.to(exps.device) - tile.first
        out = out[(out >= 0) & (out < exps.shape[2])]
        exps.view(*exps.shape[:2], self.width, -1)[..., out % self.width, out // self.width] = 0.0
        return exps.amax(2)

    def of_weights(self, tile: Tile, weights: Tensor) -> None:
        """What needs weights and not exponentials: they are compared between queries. Writes over them."""
        if self.picture is not None:
            self.picture.take(tile.items, tile.rows, tile.first, weights[..., : self.keys - tile.first])
        if self.candidates is not None:
            count = weights.shape[2]
            among, start, stop = self.candidates
            start, stop = start[tile.rows] - tile.first, stop[tile.rows] - tile.first
            weights.mul_(among[tile.first : tile.first + count])
            left, right = max(int(start.min()), 0), min(int(stop.max()), count)
            if right > left:
                key = torch.arange(left, right, device=weights.device)
                out = (key >= start[:, None]) & (key < stop[:, None])
                weights[..., left:right].masked_fill_(out, 0.0)
            self.sums["best"][tile.items, tile.rows] = weights.amax(2)

    def columns(self, tile: Tile, exps: Tensor, factor: Tensor) -> None:
        """Sums over the queries: of all for received, of mixtures."""
        columns = slice(tile.first, tile.first + exps.shape[2])
        if self.received is not None:
            sums = torch.bmm(factor[:, None], exps)[:, 0]
            self.received[tile.items, columns] += key_order(sums, self.width)
        if self.mixed is not None and self.ask.mix is not None:
            mix = self.ask.mix[:, tile.rows].to(exps) * factor[:, None]
            sums = torch.bmm(mix, exps).transpose(1, 2)
            self.mixed[tile.items, :, columns] += key_order(sums, self.width).transpose(1, 2)

    def mean_of_cells(self, tile: Tile, pooled: Tensor, factor: Tensor) -> None:
        """The weights of every cell added up, from the exponentials added up over its keys."""
        assert self.mean_map is not None
        target, out = self.cells(self.mean_map, tile), pooled if self.width > 1 else None
        weights = in_cells(torch.mul(pooled, factor[..., None], out=out), tile.height)
        if tile.height < self.height:
            target.add_(weights.sum(2))
        elif tile.height == 2:
            torch.add(weights[:, :, 0], weights[:, :, 1], out=target)
        else:
            torch.sum(weights, 2, out=target)

    def largest_in_cells(self, tile: Tile, maxima: Tensor, lse: Tensor) -> None:
        """The largest weight of every cell, from the maxima over its keys: exp2 grows with its argument."""
        assert self.max_map is not None
        target, out = self.cells(self.max_map, tile), maxima if self.width > 1 else None
        logs = in_cells(torch.sub(maxima, lse[..., None], out=out), tile.height)
        if tile.height < self.height:
            torch.maximum(target, logs.amax(2).exp2_(), out=target)
        elif tile.height == 2:
            torch.maximum(logs[:, :, 0], logs[:, :, 1], out=target).exp2_()
        else:
            torch.amax(logs, 2, out=target).exp2_()

    def cells(self, pooled: Tensor, tile: Tile) -> Tensor:
        """The cells of a map that a block has a part of, `(n, rows, columns)`."""
        first, left = tile.rows.start // self.height, tile.first // self.width
        count = (tile.rows.stop - tile.rows.start) // tile.height
        return pooled[tile.items, first : first + count, left : left + tile.scores.shape[2] // self.width]

    def result(self) -> Seen:
        """Everything in its shape, made from the sums."""
        below = self.sums["below"]
        log, factor = below.log2(), below.reciprocal().masked_fill_(below == 0, 0.0)
        seen = Seen(self.shaped((self.sums["shift"] + log) / LOG2_E))
        if self.ask.entropy:
            # -Σ p log p with log p = s - lse; the weights of a query sum to total / below.
            share = self.sums["total"] * factor
            mean = self.sums["entropy"] * factor
            seen.entropy = self.shaped(torch.where(share > 0, share * log - mean, 0.0) / LOG2_E)
        if self.ask.concentration:
            seen.concentration = self.shaped(self.sums["concentration"] * factor.square())
        if self.ask.peak:
            seen.peak = self.shaped(self.sums["peak"] * factor)
        if self.candidates is not None:
            seen.best = self.shaped(self.sums["best"])
        if self.picture is not None:
            seen.picture = self.shaped(self.picture.largest)
        if self.received is not None:
            seen.received = self.shaped(self.received[:, : self.keys].to(log.dtype))
        if self.mixed is not None:
            seen.mixed = self.shaped(self.mixed[..., : self.keys].to(log.dtype))
        if self.top is not None:
            empty, keys = self.top <= LOW / 2, self.top_keys
            short = empty[..., -1]
            if short.any():
                keys[short] = filled(keys[short], empty[short])
            seen.top_weights, seen.top_keys = self.shaped(self.top.exp2() * factor[..., None]), self.shaped(keys)
        if self.mean_map is not None:
            heights, widths = (
                (length - torch.arange(0, length, cell)).clamp_(max=cell)
                for cell, length in ((self.height, self.queries), (self.width, self.keys))
            )
            mean = self.mean_map[..., : len(widths)]
            seen.mean_map = self.shaped(mean.div_((heights[:, None] * widths).to(mean)))
        if self.max_map is not None:
            seen.max_map = self.shaped(self.max_map[..., : -(-self.keys // self.width)])
        return seen

    def shaped(self, found: Tensor) -> Tensor:
        """The flattened axis of batch items and heads as two again."""
        return found.reshape(self.b, self.h, *found.shape[1:])


def inner(a: Tensor, b: Tensor, spare: Tensor) -> Tensor:
    """The inner products of rows, `(n, rows, keys)` twice -> `(n, rows)`; may write over `spare`."""
    if a.device.type == "cpu" and torch.get_num_threads() <= FEW_THREADS and hasattr(np, "vecdot"):
        # One pass, where torch has none: a product that is written and read again. (numpy 2)
        return torch.from_numpy(np.vecdot(a.numpy(), b.numpy()))
    return torch.mul(a, b, out=spare).sum(2)


def in_cells(x: Tensor, height: int) -> Tensor:
    """The queries of every cell on an axis of their own: `(n, rows, cells)` -> `(n, rows / height, height, cells)`."""
    return x.view(len(x), -1, height, x.shape[2])


def over_keys(x: Tensor, size: int, pair: Callable[..., Tensor], many: Callable[..., Tensor]) -> Tensor:
    """Pools of `size` keys in one number each, `(n, rows, keys)` -> `(n, rows, keys / size)`.

    The keys of a pool stand far apart, as `cell_order` has them, so that whole vectors are added or compared.
    """
    if size == 1:
        return x
    parts = x.view(*x.shape[:2], size, -1)
    # Torch reduces an axis of two at half the speed of an operation on two tensors.
    return pair(parts[:, :, 0], parts[:, :, 1]) if size == 2 else many(parts, 2)
