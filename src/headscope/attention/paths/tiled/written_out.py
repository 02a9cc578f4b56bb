"""A call of the tiles as one differentiable formula, for derivatives of its gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from headscope.attention.equation import attention
from headscope.attention.paths.tiled.loop import Settings
from headscope.attention.paths.tiled.scored import ScoredTiles, unfold
from headscope.attention.paths.tiled.tile_bias import TileBias
from headscope.attention.second_derivative import Formula


def formula(settings: Settings, q: Tensor, k: Tensor) -> Formula:
    """The same call, written out as one differentiable formula of q, k, v, the numbers of the bias, and the sinks."""
    queries, keys = q.shape[2], k.shape[2]

    def values_and_lse(
        q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, sinks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return attention(
            q,
            k,
            v,
            None if bias is None else TileBias(bias, queries).whole(keys),
            sinks,
            scale=settings.scale,
            softcap=settings.softcap,
            allowed=None if settings.runs is None else settings.runs.block(slice(0, queries), 0, keys),
            keep=kept(settings, q, k, v) if settings.dropout else 0.0,
        )

    return values_and_lse


def kept(settings: Settings, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What dropout multiplies every weight with, `(b, h, q, k)`: the same as in the tiles."""
    kernel = settings.forward_kernel(q.detach(), k.detach(), v.detach(), None)
    assert isinstance(kernel, ScoredTiles)
    factor = torch.zeros(*q.shape[:3], k.shape[2], dtype=kernel.wide, device=q.device)
    for tile in (tile for group in settings.tiles.groups for tile in group):
        for piece in kernel.pieces(tile):
            for first, last in kernel.key_blocks(tile, piece):
                rows = kernel.fold(kernel.q, piece)
                keep = kernel.keep(rows.new_empty(*rows.shape[:2], last - first), piece, first)
                factor[piece.items, piece.heads, piece.rows, first:last] = unfold(keep, piece)
    return factor
