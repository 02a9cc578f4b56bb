"""The largest scores of every row, found in pools of neighbours."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from headscope.look.kernels.tiles import Tile

# Candidates are settled together: `topk` over few rows runs on one core.
SETTLE = 2**22


class Buffer:
    """Room for the candidates of some blocks: of every row some spans of neighbouring keys.

    Shapes:
        spans `(rows, count)`; scores `(rows, count · keys of a span)`, pooled `(rows, count · pools of a span)`.
    """

    def __init__(self, like: Tensor, count: int, keys: int, pools: int, rows: int) -> None:
        self.rows = max(rows, SETTLE // (count * keys))
        self.spans = torch.empty(self.rows, count, dtype=torch.int64, device=like.device)
        self.scores, self.pooled = (like.new_empty(self.rows, count * size) for size in (keys, pools))
        self.tiles: list[Tile] = []
        self.filled = 0


class Candidates:
    """The largest scores of every query, gathered block by block.

    The largest scores lie in the pools with the largest maxima, and these in the spans of pools with the largest. So a
    block only hands over as many spans as scores are wanted, and the largest in them are found later, over many rows.

    Attributes:
        scores, keys: `(n, queries, count)`, in falling order; settled after `settle`.
    """

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores
        self.keys = torch.zeros_like(scores, dtype=torch.int64)
        self.buffers: dict[tuple[int, int], Buffer] = {}

    def take(self, tile: Tile, pooled: Tensor) -> None:
        """Keep the candidates of one block."""
        n, queries, width = tile.scores.shape
        rows, count, pools = n * queries, min(self.scores.shape[2], width), pooled.shape[2]
        spans = spans_of(pools, count)
        if spans is None or width == pools:
            self.put(tile, *most(tile.scores.view(rows, width), count))
            return
        buffer = self.buffer(tile, (width // spans, pools // spans), count, rows)
        part = slice(buffer.filled, buffer.filled + rows)
        best = pooled.view(rows, spans, -1).amax(2).topk(count, dim=1, sorted=False).indices
        where = torch.add(best, starts(rows, spans, best.device)).view(-1)
        buffer.spans[part] = best
        for x, to in ((tile.scores, buffer.scores), (pooled, buffer.pooled)):
            torch.index_select(x.view(rows * spans, -1), 0, where, out=to[part].view(rows * count, -1))
        buffer.tiles.append(tile)
        buffer.filled = part.stop

    def buffer(self, tile: Tile, size: tuple[int, int], count: int, rows: int) -> Buffer:
        """A buffer with room for some more rows, for spans of a size."""
        buffer = self.buffers.get(size)
        if buffer is not None and buffer.filled + rows > buffer.rows:
            self.empty(buffer)
        if buffer is None or buffer.rows < rows:
            buffer = self.buffers[size] = Buffer(tile.scores, count, *size, rows)
        return buffer

    def settle(self) -> None:
        """Find the largest of all candidates that wait."""
        for buffer in self.buffers.values():
            self.empty(buffer)

    def empty(self, buffer: Buffer) -> None:
        """Find the largest of the candidates of one buffer, and make room."""
        if not buffer.tiles:
            return
        spans, scores, pooled = (x[: buffer.filled] for x in (buffer.spans, buffer.scores, buffer.pooled))
        count = spans.shape[1]
        size = scores.shape[1] // count
        found, where = within(scores, pooled, count)
        keys = spans.gather(1, where // size) * size + where % size
        lengths = [tile.scores.shape[0] * tile.scores.shape[1] for tile in buffer.tiles]
        parts = zip(buffer.tiles, torch.split(found, lengths), torch.split(keys, lengths), strict=True)
        for tile, some, key in parts:
            self.put(tile, some, key)
        buffer.tiles, buffer.filled = [], 0

    def put(self, tile: Tile, scores: Tensor, keys: Tensor) -> None:
        """Write down the largest scores of one block."""
        n, count = tile.items.stop - tile.items.start, scores.shape[1]
        at = (tile.items, tile.rows, slice(0, count))
        self.scores[at] = scores.view(n, -1, count)
        self.keys[at] = keys.view(n, -1, count) + tile.first


@functools.lru_cache(16)
def starts(rows: int, size: int, device: torch.device) -> Tensor:
    """Where each row begins when all lie one behind the other; the same for block after block."""
    return torch.arange(0, rows * size, size, device=device)[:, None]


def spans_of(pools: int, count: int) -> int | None:
    """Into how many spans pools are cut: about eight for each score that is wanted; None when that saves nothing."""
    spans = pools
    while spans % 2 == 0 and spans > 8 * count:
        spans //= 2
    return spans if 4 * count <= spans <= 16 * count else None


def within(values: Tensor, pooled: Tensor, count: int, ordered: bool = True) -> tuple[Tensor, Tensor]:
    """The `count` largest values of every row and where they are, given the maxima of equal pools of neighbours."""
    rows, pools = pooled.shape
    unit = values.shape[1] // pools
    best = most(pooled, count, ordered=False)[1]
    where = (best + starts(rows, pools, values.device)).view(-1)
    candidates = values.view(-1, unit).index_select(0, where).view(rows, count * unit)
    found, where = most(candidates, count, ordered)
    return found, best.gather(1, where // unit) * unit + where % unit


def most(values: Tensor, count: int, ordered: bool = True) -> tuple[Tensor, Tensor]:
    """`topk` along long rows: through the maxima of pools of neighbours, as long as that saves something."""
    rows, width = values.shape
    unit = 8 if width > 16 * count else 4
    if width % unit or width <= 8 * count:
        found = values.topk(count, dim=1, sorted=ordered)
        return found.values, found.indices
    return within(values, values.view(rows, -1, unit).amax(2), count, ordered)
