"""All tiles of a call, one after the other: forward, and the gradients from the same tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from headscope.attention.masks.runs import Runs
from headscope.attention.merge import merge
from headscope.attention.paths.tiled import flash
from headscope.attention.paths.tiled.bias_floor import with_floor
from headscope.attention.paths.tiled.flash import FlashTiles
from headscope.attention.paths.tiled.schedule import Schedule
from headscope.attention.paths.tiled.scored import ScoredTiles
from headscope.attention.paths.tiled.tile_bias import TileBias
from headscope.attention.precision import autocast_off
from headscope.attention.sinks import with_sinks
from headscope.shapes import acc_dtype


@dataclass(frozen=True, slots=True)
class Settings:
    """What a call asks of its tiles besides tensors; `runs` is its mask, None where everything may be seen."""

    tiles: Schedule
    runs: Runs | None
    scale: float
    softcap: float | None
    dropout: float
    seed: int

    def tile_bias(self, bias: Tensor | None, q: Tensor, k: Tensor) -> TileBias | None:
        """A bias as the tiles of a call read it: the numbers of `bias_values`."""
        if bias is None:
            return None
        line = bias.ndim == 2
        return TileBias(with_floor(bias, q, k, self.scale, self.softcap, self.runs) if line else bias, q.shape[2])

    def forward_kernel(self, q: Tensor, k: Tensor, v: Tensor, bias: TileBias | None) -> FlashTiles | ScoredTiles:
        """Who computes the tiles."""
        if flash.runs_on(q.device) and self.softcap is None and not self.dropout:
            return FlashTiles(q, k, v, self.scale, bias, self.tiles.masks)
        return ScoredTiles(q, k, v, self.scale, bias, self.softcap, self.dropout, self.seed)

    def backward_kernel(
        self, q: Tensor, k: Tensor, v: Tensor, bias: TileBias | None, bias_trains: bool
    ) -> FlashTiles | ScoredTiles:
        """Who computes their gradients."""
        if bias_trains:
            return ScoredTiles(q, k, v, self.scale, bias, self.softcap, self.dropout, self.seed, bias_trains=True)
        return self.forward_kernel(q, k, v, bias)


class TileShapes(NamedTuple):
    """Which tiles a call can do with; see `schedule`."""

    square: bool
    repeat: bool


def tile_shapes(device: torch.device, *, bias: bool, softcap: bool, dropout: bool) -> TileShapes:
    """Without large triangles where a bias must be added to every block of them.

    Copies of a tile are one call of the kernel, where that is all a tile needs.
    """
    return TileShapes(not bias, not (bias or softcap or dropout) and flash.runs_on(device))


def run_tiles(kernel: FlashTiles | ScoredTiles, tiles: Schedule, sinks: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Values and lse of all tiles; rows that no tile holds see nothing but the sinks, where there are any."""
    with autocast_off(kernel.q):
        return _run_tiles(kernel, tiles, sinks)


def _run_tiles(kernel: FlashTiles | ScoredTiles, tiles: Schedule, sinks: Tensor | None) -> tuple[Tensor, Tensor]:
    b, h, queries, _ = kernel.q.shape
    # The layout of torch's kernels: (b, q, h, e) in memory, so that merging the heads is free.
    values = kernel.q.new_empty(b, queries, h, kernel.v.shape[3]).transpose(1, 2)
    lse = kernel.q.new_empty(b, h, queries, dtype=acc_dtype(kernel.q.dtype))
    for items, heads, rows in tiles.blank:
        values[items, heads, rows], lse[items, heads, rows] = 0, -math.inf
    for group in tiles.groups:
        part, part_lse = merge([kernel.forward(tile) for tile in group])
        where = group[0].items, group[0].heads, group[0].all_rows
        values[where], lse[where] = part, part_lse
    for items, heads, rows in tiles.fully_masked:
        lse[items, heads, rows] = -math.inf
    if sinks is not None:
        # In place: what the backward keeps is what the caller gets.
        shares, lse = with_sinks(torch.ones_like(lse)[..., None], lse, sinks)
        values *= shares.to(values.dtype)
    return values, lse


def tile_gradients(
    kernel: FlashTiles | ScoredTiles,
    tiles: Schedule,
    grad: Tensor,
    values: Tensor,
    lse: Tensor,
    grad_lse: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v. Those of k and v gather over many tiles, in float32 or better."""
    # The backward may be called inside of an autocast block.
    with autocast_off(kernel.q):
        return _tile_gradients(kernel, tiles, grad, values, lse, grad_lse)


def _tile_gradients(
    kernel: FlashTiles | ScoredTiles,
    tiles: Schedule,
    grad: Tensor,
    values: Tensor,
    lse: Tensor,
    grad_lse: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    wide = acc_dtype(kernel.q.dtype)
    dq = torch.zeros_like(kernel.q)
    dk, dv = (torch.zeros(x.shape, dtype=wide, device=x.device) for x in (kernel.k, kernel.v))
    lse = lse.masked_fill(lse.isneginf(), 0.0)
    if grad.stride(3) != 1:
        grad = grad.contiguous()
    share = kernel.q.shape[1] // kernel.k.shape[1]
    for group in tiles.groups:
        where = group[0].items, group[0].heads, group[0].all_rows
        for tile in group:
            part = kernel.backward(
                tile, grad[where], values[where], lse[where], None if grad_lse is None else grad_lse[where]
            )
            dq[where] += part[0]
            groups, offset = tile.groups(share), 0
            for first, last in tile.all_spans:
                for total, piece in ((dk, part[1]), (dv, part[2])):
                    total[tile.items, groups, first:last] += piece[:, :, offset : offset + last - first]
                offset += last - first
    return dq, dk.to(kernel.k.dtype), dv.to(kernel.v.dtype)
