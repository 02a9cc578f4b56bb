"""Everything that is asked of an attention call's weights, in one pass over blocks of its scores."""

from __future__ import annotations

import torch
from torch import Tensor

from headscope.attention.request import Request
from headscope.look.kernels import gpu_pass
from headscope.look.kernels.ask import Ask, Seen
from headscope.look.kernels.largest import Candidates
from headscope.look.kernels.tiles import LOW, Tile, exponentials, walk, wide
from headscope.look.progress import progress

# The width of the pools of keys from which the top keys are found, when no map asks for another.
POOL = 32
# Cells of fewer queries than this are added up query by query: their products of matrices would be too many.
LOW_CELL = 8
# While every row's largest score stays within this, exp needs no shift: nothing overflows or vanishes, and the entropy,
# a difference of numbers of this size, keeps its digits.
SAFE = 10.0


def stream(request: Request, ask: Ask) -> Seen:
    """One pass over all weights that yields everything asked for at once. O(N) memory; no gradients.

    Source: the row maximum and sum are the softmax of Milakov & Gimelshein 2018; the rest are its by-products.
    """
    if request.device.kind == "cuda" and not gpu_pass.refusals(request, ask):
        return gpu_pass.run(request, ask)
    one = Pass(request, ask)
    b, h, queries, _ = request.q.shape
    with torch.no_grad(), progress("looking", b * h * queries) as advance:
        for tile in walk(request, unit=one.unit, height=ask.cells[0] if ask.maps else 1):
            if tile.scores.shape[2]:
                one.take(tile)
            advance((tile.items.stop - tile.items.start) * (tile.rows.stop - tile.rows.start))
    return one.result()


class Pass:
    """The running sums of one pass.

    A block adds only what needs its weights; what can be made from a query's sums is made once, in `result`. With E the
    exponentials of a query's scores minus its `shift`, its weights are E / `below`, its lse `shift` + log `below`.
    """

    def __init__(self, request: Request, ask: Ask) -> None:
        self.request, self.ask = request, ask
        self.b, self.h, queries, _ = request.q.shape
        self.n, self.keys = self.b * self.h, request.k.shape[2]
        self.unit = ask.cells[1] if ask.maps else POOL if ask.top else 1
        pools = -(-self.keys // self.unit)
        like = wide(request.q.detach().reshape(-1)[:0])
        self.sinks = None if request.sinks is None else request.sinks.detach().to(like).repeat(self.b)[:, None]
        names = ["shift", "total", *(name for name in ("entropy", "concentration", "peak") if getattr(ask, name))]
        self.sums = {name: like.new_zeros(self.n, queries) for name in names}
        self.sums["below"] = self.sums["total"] if self.sinks is None else self.sinks.exp().repeat(1, queries)
        self.parts: tuple[slice, dict[str, tuple[Tensor, ...]]] | None = None
        wide_keys, count = pools * self.unit, 0 if ask.mix is None else len(ask.mix)
        self.received = like.new_zeros(self.n, wide_keys, dtype=torch.float64) if ask.received else None
        self.mixed = None if ask.mix is None else like.new_zeros(self.n, count, wide_keys, dtype=torch.float64)
        size = (self.n, -(-queries // ask.cells[0]), pools)
        self.mean_map = like.new_zeros(size) if ask.mean_map else None
        self.max_map = like.new_zeros(size) if ask.max_map else None
        self.top = Candidates(like.new_full((self.n, queries, ask.top), LOW)) if ask.top else None

    def part(self, tile: Tile) -> dict[str, Tensor]:
        """The places of a block's queries in every sum of a query; cut once for all blocks of some items."""
        if self.parts is None or self.parts[0] != tile.items:
            cut = {name: torch.split(found[tile.items], tile.step, dim=1) for name, found in self.sums.items()}
            self.parts = tile.items, cut
        return {name: found[tile.number] for name, found in self.parts[1].items()}

    def take(self, tile: Tile) -> None:
        """Add one block of scores to the running sums."""
        scores, part = tile.scores, self.part(tile)
        n, rows, width = scores.shape
        pooled = scores.view(n, rows, -1, self.unit).amax(3) if self.unit > 1 else scores
        peak = pooled.amax(2)
        safe = not scores.is_cuda and all(abs(float(end)) < SAFE for end in peak.aminmax())
        if not safe:
            # A query that sees nothing keeps a shift of 0, so that its exponentials are 0.
            shift = part["shift"].copy_(peak.masked_fill(peak < LOW / 2, 0.0))
            pooled = pooled - shift[..., None] if self.unit > 1 else pooled
            scores.sub_(shift[..., None])
        if self.top is not None:
            self.top.take(tile, pooled)
        quick = safe and not tile.hides
        exps = exponentials(scores, tile.spare, quick=quick)
        below = torch.sum(exps, 2, out=part["total"])
        if self.sinks is not None:
            below = torch.add(below, torch.exp(self.sinks[tile.items] - part["shift"]), out=part["below"])
        factor = below.reciprocal()
        if not safe:
            factor.masked_fill_(below == 0, 0.0)
        if self.received is not None or self.mean_map is not None or self.mixed is not None:
            self.columns(tile, exps, factor)
        if self.max_map is not None:
            self.maxima(tile, exponentials(pooled, torch.empty_like(pooled), quick=quick).mul_(factor[..., None]))
        # The moments come last, since they write over the block.
        if "concentration" in part:
            torch.linalg.vector_norm(exps, dim=2, out=part["concentration"])
        if "entropy" in part:
            torch.sum(scores.mul_(exps), 2, out=part["entropy"])
        if "peak" in part:
            if self.ask.leave_out is not None:
                out = self.ask.leave_out.to(exps.device) - tile.first
                exps.index_fill_(2, out[(out >= 0) & (out < width)], 0.0)
            torch.amax(exps, 2, out=part["peak"])

    def cells(self, tile: Tile) -> tuple[Tensor, int, int]:
        """The cell of every query of a block, counted from its first; that first cell, and the one after the last."""
        height = self.ask.cells[0]
        first = tile.rows.start // height
        rows = torch.arange(tile.rows.start, tile.rows.stop, device=tile.scores.device)
        return rows // height - first, first, (tile.rows.stop - 1) // height + 1

    def added(self, tile: Tile, exps: Tensor, factor: Tensor) -> Tensor:
        """The weights added up over the queries of each cell that a block has a part of, `(n, cells, width)`."""
        n, rows, width = exps.shape
        height = self.ask.cells[0] if self.mean_map is not None else rows
        if rows % height or (self.mean_map is not None and tile.rows.start % height):
            cells, first, last = self.cells(tile)
            kept = cells == torch.arange(last - first, device=exps.device)[:, None]
            return torch.bmm(kept.to(factor) * factor[:, None, :], exps)
        if height >= LOW_CELL:
            # A product of one row for each cell reads every number once, and that is all it takes.
            return torch.bmm(factor.view(-1, 1, height), exps.view(-1, height, width)).view(n, -1, width)
        parts, factors = exps.view(n, -1, height, width), factor.view(n, -1, height, 1)
        sums = parts[:, :, 0] * factors[:, :, 0]
        for row in range(1, height):
            sums.addcmul_(parts[:, :, row], factors[:, :, row])
        return sums

    def columns(self, tile: Tile, exps: Tensor, factor: Tensor) -> None:
        """Sums over the queries: per cell for the map, over all of these for received."""
        n, _, width = exps.shape
        columns = slice(tile.first, tile.first + width)
        if self.received is not None or self.mean_map is not None:
            sums = self.added(tile, exps, factor)
            if self.received is not None:
                self.received[tile.items, columns] += sums.sum(1)
            if self.mean_map is not None:
                first = tile.rows.start // self.ask.cells[0]
                pools = slice(columns.start // self.unit, columns.stop // self.unit)
                target = self.mean_map[tile.items, first : first + sums.shape[1], pools]
                target += sums.view(n, sums.shape[1], -1, self.unit).sum(3)
        if self.mixed is not None and self.ask.mix is not None:
            mix = self.ask.mix[:, tile.rows].to(exps) * factor[:, None, :]
            self.mixed[tile.items, :, columns] += torch.bmm(mix, exps)

    def maxima(self, tile: Tile, weights: Tensor) -> None:
        """The largest weight of every cell, from those of pools: exp grows with its argument, so they were scores."""
        assert self.max_map is not None
        n, rows, pools = weights.shape
        height, left = self.ask.cells[0], tile.first // self.unit
        first, last = tile.rows.start // height, (tile.rows.stop - 1) // height + 1
        target = self.max_map[tile.items, first:last, left : left + pools]
        if tile.rows.start % height == 0 and rows % height == 0:
            torch.amax(weights.view(n, -1, height, pools), 2, out=target)
            return
        cells = self.cells(tile)[0]
        target.scatter_reduce_(1, cells[None, :, None].expand(weights.shape), weights, "amax")

    def result(self) -> Seen:
        """Everything in its shape, made from the sums."""
        below = self.sums["below"]
        log, factor = below.log(), below.reciprocal().masked_fill_(below == 0, 0.0)
        seen = Seen(self.shaped(self.sums["shift"] + log))
        if "entropy" in self.sums:
            # -Σ p log p with log p = s - lse; the weights of a query sum to total / below.
            share = self.sums["total"] * factor
            mean = self.sums["entropy"] * factor
            seen.entropy = self.shaped(torch.where(share > 0, share * log - mean, 0.0))
        if "concentration" in self.sums:
            seen.concentration = self.shaped((self.sums["concentration"] * factor).square())
        if "peak" in self.sums:
            seen.peak = self.shaped(self.sums["peak"] * factor)
        if self.received is not None:
            seen.received = self.shaped(self.received[:, : self.keys].to(log.dtype))
        if self.mixed is not None:
            seen.mixed = self.shaped(self.mixed[..., : self.keys].to(log.dtype))
        if self.top is not None:
            self.top.settle()
            scores = self.top.scores
            seen.top_weights = self.shaped(
                exponentials(scores, torch.empty_like(scores), quick=False) * factor[..., None]
            )
            seen.top_keys = self.shaped(self.top.keys.clamp(max=max(self.keys - 1, 0)))
        if self.mean_map is not None:
            heights, widths = (
                torch.full((count,), cell).clamp_(max=length - torch.arange(count) * cell)
                for count, cell, length in zip(
                    self.mean_map.shape[1:], self.ask.cells, (below.shape[1], self.keys), strict=True
                )
            )
            seen.mean_map = self.shaped(self.mean_map / (heights[:, None] * widths).to(self.mean_map))
        if self.max_map is not None:
            seen.max_map = self.shaped(self.max_map)
        return seen

    def shaped(self, found: Tensor) -> Tensor:
        """The flattened axis of batch items and heads as two again."""
        return found.reshape(self.b, self.h, *found.shape[1:])
