"""Tiles with the scores in the open: softcap, dropout, gradients of biases, and any device.

Every block of scores is small enough to stay in a core's cache, is made in place, and is gone before the next one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from headscope.attention.paths.tiled.tile import Tile
from headscope.attention.paths.tiled.tile_bias import TileBias
from headscope.shapes import acc_dtype

# Numbers in one block of scores, its rows and its keys: 2 MB of float32, the size of a core's second cache.
BLOCK, ROWS, KEYS = 2**19, 512, 1024
# A GPU wants fewer, larger blocks.
DEVICE_BLOCK, DEVICE_ROWS, DEVICE_KEYS = 2**26, 2048, 4096
# Scores are kept in units of log 2: torch's exp is up to 500 x slower where results are denormal and 12 x for -inf;
# exp2 is not.
LOG2E = math.log2(math.e)
# Scores within ±50 can be exponentiated as they are: e^50 is far from float32's end, and so is e^-50.
SAFE = 50.0


class Piece(NamedTuple):
    """A part of a tile whose scores are in the open at once: items, whole groups of heads or a part of one, rows."""

    items: slice
    heads: slice
    rows: slice


class ScoredTiles:
    """q, k and v, a tile at a time, in float32 or better.

    Shapes:
        q `(b, h, q, d)`, k `(b, g, k, d)`, v `(b, g, k, e)`.
    """

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        bias: TileBias | None = None,
        softcap: float | None = None,
        dropout: float = 0.0,
        seed: int = 0,
        bias_trains: bool = False,
    ) -> None:
        self.q, self.k, self.v, self.scale, self.bias, self.softcap = q, k, v, scale, bias, softcap
        self.dropout, self.seed, self.bias_trains = dropout, seed, bias_trains
        self._planes: dict[tuple[bool | int, ...], Tensor] = {}
        self._allowed: tuple[bytes, Tensor] | None = None
        self.wide = acc_dtype(q.dtype)
        on_cpu = q.device.type == "cpu"
        self.block, self.most_rows, self.most_keys = (
            (BLOCK, ROWS, KEYS) if on_cpu else (DEVICE_BLOCK, DEVICE_ROWS, DEVICE_KEYS)
        )

    def forward(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """Values `(items, heads, rows, e)` in float32 or better, and lse `(items, heads, rows)`, of a tile."""
        items, heads, rows = (x.stop - x.start for x in (tile.items, tile.heads, tile.rows))
        values = torch.empty(items, heads, rows, self.v.shape[3], dtype=self.wide, device=self.q.device)
        lse = torch.empty(items, heads, rows, dtype=self.wide, device=self.q.device)
        for piece in self.pieces(tile):
            where = within(piece.items, tile.items), within(piece.heads, tile.heads), within(piece.rows, tile.rows)
            values[where], lse[where] = self.online(tile, piece)
        return values, lse

    def online(self, tile: Tile, piece: Piece) -> tuple[Tensor, Tensor]:
        """Values and lse of one piece, over its keys block by block."""
        q = self.fold(self.q, piece)
        top = q.new_full((*q.shape[:2], 1), -math.inf)
        total = torch.zeros_like(top)
        values = q.new_zeros(*q.shape[:2], self.v.shape[3])
        # Capped scores need no running maximum: they cannot overflow.
        bounded = self.softcap is not None and self.softcap <= SAFE and self.bias is None
        for first, last in self.key_blocks(tile, piece):
            s, _ = self.scores(q, tile, piece, first, last)
            if not bounded:
                higher = torch.maximum(top, s.amax(-1, keepdim=True))
                base = higher.masked_fill(higher.isneginf(), 0.0)
                shrink = torch.exp2(top - base)
                total *= shrink
                values *= shrink
                top = higher
                s -= base
            s.exp2_()
            total += s.sum(-1, keepdim=True)
            if self.dropout:
                s *= self.keep(s, piece, first)
            values.baddbmm_(s, self.keys_of(self.v, piece, first, last))
        empty = total == 0
        values /= total.masked_fill(empty, 1.0)
        lse = total.log() if bounded else total.log() + top.masked_fill(empty, 0.0) / LOG2E
        return unfold(values, piece), unfold(lse, piece)[..., 0]

    def backward(
        self, tile: Tile, grad: Tensor, values: Tensor, lse: Tensor, grad_lse: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q over the tile's rows and of k and v over its spans, in float32 or better.

        The gradient of the bias is added up in the bias itself.

        Args:
            grad, values, lse, grad_lse: of the rows of the tile, over all their keys; a finite lse for every row.
        """
        share = self.q.shape[1] // self.k.shape[1]
        groups = tile.groups(share)
        items, heads, rows = (x.stop - x.start for x in (tile.items, tile.heads, tile.rows))
        dq = torch.zeros(items, heads, rows, self.q.shape[3], dtype=self.wide, device=self.q.device)
        dk, dv = (
            torch.zeros(items, groups.stop - groups.start, tile.keys, x.shape[3], dtype=self.wide, device=x.device)
            for x in (self.k, self.v)
        )
        # What the softmax takes back from every score of a row, less what the lse itself is asked for.
        drawn = (grad.to(self.wide) * values.to(self.wide)).sum(-1)
        drawn = drawn if grad_lse is None else drawn - grad_lse.to(self.wide)
        for piece in self.pieces(tile):
            local = Piece(
                within(piece.items, tile.items), within(piece.heads, tile.heads), within(piece.rows, tile.rows)
            )
            q, go = self.fold(self.q, piece), self.fold(grad, local)
            row_lse, row_drawn = self.fold(lse[..., None], local) * LOG2E, self.fold(drawn[..., None], local)
            part = torch.zeros_like(q)
            inner = (
                local.items,
                slice(piece.heads.start // share - groups.start, (piece.heads.stop - 1) // share + 1 - groups.start),
            )
            for first, last in self.key_blocks(tile, piece):
                p, slope = self.scores(q, tile, piece, first, last, differentiate=True)
                p -= row_lse
                p.exp2_()
                k, v = (self.keys_of(x, piece, first, last) for x in (self.k, self.v))
                ds = torch.bmm(go, v.transpose(1, 2))
                if self.dropout:
                    keep = self.keep(p, piece, first)
                    ds *= keep
                    dv_part = torch.bmm((p * keep).transpose(1, 2), go)
                else:
                    dv_part = torch.bmm(p.transpose(1, 2), go)
                ds -= row_drawn
                ds *= p
                if self.bias is not None and self.bias_trains:
                    self.bias.add_gradient(*piece, first, last, unfold(ds, piece))
                if slope is not None:
                    ds *= slope
                part.baddbmm_(ds, k, alpha=self.scale)
                at = offset(tile, first)
                where = (*inner, slice(at, at + last - first))
                shape = (inner[0].stop - inner[0].start, inner[1].stop - inner[1].start, last - first, -1)
                dv[where] += dv_part.view(shape)
                dk[where] += torch.bmm(ds.transpose(1, 2), q).mul_(self.scale).view(shape)
            dq[local] += unfold(part, piece)
        return dq, dk, dv

    def scores(
        self, q: Tensor, tile: Tile, piece: Piece, first: int, last: int, differentiate: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Scores / log 2 of a piece and a block of keys, folded, and where asked the slope of the softcap at each."""
        k = self.keys_of(self.k, piece, first, last)
        s = torch.bmm(q * (self.scale / self.softcap if self.softcap else self.scale * LOG2E), k.transpose(1, 2))
        slope = None
        if self.softcap:
            s.tanh_()
            slope = 1.0 - s * s if differentiate else None
            s *= self.softcap * LOG2E
        if self.bias is not None:
            unfold(s, piece).add_(self.bias.block(*piece, first, last), alpha=LOG2E)
        hidden = self.hidden(tile, piece, first, last)
        if hidden is not None:
            unfold(s, piece).masked_fill_(hidden, -math.inf)
        return s, slope

    def pieces(self, tile: Tile) -> Iterator[Piece]:
        """The tile in parts whose blocks of scores fit."""
        share = min(self.q.shape[1] // self.k.shape[1], tile.heads.stop - tile.heads.start)
        rows = max(1, min(self.most_rows // share, tile.rows.stop - tile.rows.start))
        planes = max(1, self.block // (rows * share * max(1, min(tile.keys, self.most_keys))))
        heads = min(tile.heads.stop - tile.heads.start, planes * share)
        items = max(1, planes * share // heads)
        for item in cuts(tile.items, items):
            for head in cuts(tile.heads, heads):
                for row in cuts(tile.rows, rows):
                    yield Piece(item, head, row)

    def key_blocks(self, tile: Tile, piece: Piece) -> Iterator[tuple[int, int]]:
        """The keys of the tile in blocks, but those that no row of the piece can see."""
        for first, last in tile.spans:
            end = first + piece.rows.stop - tile.rows.start if tile.kind == "causal" else last
            yield from ((cut.start, cut.stop) for cut in cuts(slice(first, end), self.most_keys))

    def hidden(self, tile: Tile, piece: Piece, first: int, last: int) -> Tensor | None:
        """Which keys of a block the rows of a piece may not see, `(rows, keys)`; None where they may see all."""
        rows = within(piece.rows, tile.rows)
        if tile.kind == "causal":
            own = torch.arange(rows.start, rows.stop, device=self.q.device) + tile.spans[0][0]
            return (
                torch.arange(first, last, device=own.device) > own[:, None]
                if last - 1 > tile.spans[0][0] + rows.start
                else None
            )
        if tile.kind == "full":
            return None
        if self._allowed is None or self._allowed[0] != tile.pattern:
            self._allowed = tile.pattern, torch.from_numpy(~tile.allowed()).to(self.q.device)
        at = offset(tile, first)
        return self._allowed[1][rows, at : at + last - first]

    def keys_of(self, x: Tensor, piece: Piece, first: int, last: int) -> Tensor:
        """Keys or values of a piece, one plane for each item and group: `(planes, keys, size)`."""
        share = self.q.shape[1] // self.k.shape[1]
        groups = slice(piece.heads.start // share, (piece.heads.stop - 1) // share + 1)
        which = x is self.v, piece.items.start, piece.items.stop, groups.start, groups.stop
        # All pieces of a plane follow each other, so that each plane is widened once.
        if which not in self._planes:
            self._planes = {key: plane for key, plane in self._planes.items() if key[1:] == which[1:]}
            self._planes[which] = x[piece.items, groups].flatten(0, 1).to(self.wide)
        return self._planes[which][:, first:last]

    def fold(self, x: Tensor, piece: Piece) -> Tensor:
        """Rows of a piece, one plane for each item and group, the heads of a group below each other.

        Shapes:
            returns `(planes, rows, size)`.
        """
        share = min(self.q.shape[1] // self.k.shape[1], piece.heads.stop - piece.heads.start)
        cut = x[piece.items, piece.heads, piece.rows]
        return cut.reshape(-1, share * cut.shape[2], x.shape[3]).to(self.wide)

    def keep(self, weights: Tensor, piece: Piece, first: int) -> Tensor:
        """Which weights dropout keeps, scaled; the same in forward and backward, by a seed for each block."""
        generator = torch.Generator(weights.device)
        place = (piece.items.start * self.q.shape[1] + piece.heads.start) * self.q.shape[2] + piece.rows.start
        generator.manual_seed((self.seed + place * self.k.shape[2] + first) % 2**63)
        return (
            torch.rand(weights.shape, generator=generator, device=weights.device)
            .ge(self.dropout)
            .to(weights.dtype)
            .div_(1 - self.dropout)
        )


def cuts(whole: slice, step: int) -> list[slice]:
    """A range in parts of at most `step`."""
    return [slice(first, min(first + step, whole.stop)) for first in range(whole.start, whole.stop, step)]


def within(part: slice, whole: slice) -> slice:
    """A range counted from the start of another."""
    return slice(part.start - whole.start, part.stop - whole.start)


def offset(tile: Tile, key: int) -> int:
    """Where a key stands among the keys of a tile."""
    return sum(max(0, min(last, key) - first) for first, last in tile.spans)


def unfold(x: Tensor, piece: Piece) -> Tensor:
    """Folded rows as `(items, heads, rows, …)`, a view."""
    items, heads, rows = (s.stop - s.start for s in piece)
    return x.view(items, heads, rows, x.shape[2])
