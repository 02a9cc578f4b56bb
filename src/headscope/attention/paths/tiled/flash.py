"""Tiles on the kernel below torch's SDPA on CPU.

It is the kernel that gives the lse, takes it back in the backward, and knows grouped heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention.paths.tiled.tile import Tile
from headscope.attention.paths.tiled.tile_bias import TileBias
from headscope.compat import torch as private
from headscope.shapes import acc_dtype

# The kernel multiplies blocks of 16 keys at full speed and falls to a slow remainder otherwise (up to 2 x in bfloat16).
KEYS = 16
# Masks of tiles that are kept at a time; a band needs a handful.
MASKS = 8


def runs_on(device: torch.device) -> bool:
    """Whether there is such a kernel for a device, in this version of torch."""
    return device.type == "cpu" and private.FLASH is not None


class FlashTiles:
    """q, k and v, a tile at a time; no softcap, no dropout; a bias may be added but gets no gradient here.

    Shapes:
        q `(b, h, q, d)`, k `(b, g, k, d)`, v `(b, g, k, d)`, contiguous in the last axis.
    """

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        bias: TileBias | None,
        masks: dict[tuple[bytes, object], Tensor],
    ) -> None:
        assert private.FLASH is not None
        self.kernels = private.FLASH
        self.q, self.k, self.v, self.scale, self.bias = q, k, v, scale, bias
        self._masks = masks

    def forward(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """Values `(items, heads, rows, d)` and lse `(items, heads, rows)` of a tile, with the rows of its copies."""
        q, k, v = self.cut(tile)
        if self.flips(tile):
            values, lse = self.kernels.forward(q.flip(2), k, v, attn_mask=self.added(tile), scale=self.scale)
            return values.flip(2), lse.flip(2)
        values, lse = self.kernels.forward(
            q, k, v, 0.0, tile.kind == "causal", attn_mask=self.added(tile), scale=self.scale
        )
        return below(values, tile.repeat), below(lse, tile.repeat)

    def backward(
        self, tile: Tile, grad: Tensor, values: Tensor, lse: Tensor, grad_lse: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q `(…, rows, d)` and of k and v over the tile's spans, those of its copies included.

        Args:
            grad, values, lse, grad_lse: of the rows of the tile, over all their keys; a finite lse for every row.
        """
        q, k, v = self.cut(tile)
        d = q.shape[3]
        flips = self.flips(tile)
        grad, values, lse = (beside(x, tile.repeat) for x in (grad, values, lse))
        grad_lse = None if grad_lse is None else beside(grad_lse, tile.repeat)
        if flips:
            q, grad, values, lse = (x.flip(2) for x in (q, grad, values, lse))
            grad_lse = None if grad_lse is None else grad_lse.flip(2)
        if grad_lse is not None:
            # The kernel computes dS = P ∘ (dO·Vᵀ - rowsum(dO ∘ O)). One more value column, of ones in V, of d lse in dO
            # and of zeros in O, adds d lse to the first term alone: exactly the gradient of the lse. Eight keep rows
            # aligned.
            q, k, values = (pad(x, (0, 8)) for x in (q, k, values))
            v = torch.cat([v, torch.ones_like(v[..., :1]), v.new_zeros(*v.shape[:3], 7)], dim=3)
            grad = torch.cat([grad, grad_lse[..., None].to(grad.dtype), grad.new_zeros(*grad.shape[:3], 7)], dim=3)
        causal = tile.kind == "causal"
        grads = self.kernels.backward(
            grad, q, k, v, values, lse, 0.0, causal, attn_mask=self.added(tile), scale=self.scale
        )
        dq, dk, dv = (g[..., :d] for g in grads)
        dk, dv = (gathered(x[:, :, : tile.keys], tile) for x in (dk, dv))
        return dq.flip(2) if flips else below(dq, tile.repeat), dk, dv

    def flips(self, tile: Tile) -> bool:
        """Whether the tile runs with its rows reversed, so that a line of biases is a block without one being made."""
        return self.bias is not None and self.bias.is_line and tile.kind == "full" and len(tile.spans) == 1

    def spare(self, tile: Tile) -> int:
        """Keys to take along behind the tile, unseen, so that the kernel gets whole blocks of them; 0 without any."""
        if self.bias is not None:
            return 0
        return min(-tile.keys % KEYS, self.k.shape[2] - tile.spans[-1][1] - (tile.repeat - 1) * tile.step)

    def cut(self, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of a tile, with its spare keys at the end."""
        groups = tile.groups(self.q.shape[1] // self.k.shape[1])
        *before, (start, stop) = tile.spans
        stop += self.spare(tile)
        if tile.repeat > 1:
            q = copies(self.q[tile.items, tile.heads, tile.rows], tile.repeat, tile.rows.stop - tile.rows.start)
            k, v = (copies(x[tile.items, groups, start:stop], tile.repeat, tile.step) for x in (self.k, self.v))
            return q, k, v
        q, k, v = self.q[tile.items, tile.heads, tile.rows], self.k[tile.items, groups], self.v[tile.items, groups]
        if not before:
            return q, k[:, :, start:stop], v[:, :, start:stop]
        spans = [*before, (start, stop)]
        k, v = (torch.cat([x[:, :, a:b] for a, b in spans], dim=2) for x in (k, v))
        return q, k, v

    def added(self, tile: Tile) -> Tensor | None:
        """What the kernel adds to the scores: the bias, and minus infinity for what the rows of the tile do not see."""
        mask = self.mask(tile)
        if self.bias is None:
            return mask
        if self.flips(tile):
            ((first, last),) = tile.spans
            return self.bias.reversed_rows(tile.heads, tile.rows, first, last)
        # Expanded before they are joined: a bias may be one number for all keys.
        blocks = [
            self.bias.block(tile.items, tile.heads, tile.rows, first, last).expand(-1, -1, -1, last - first)
            for first, last in tile.spans
        ]
        rows = tile.rows.stop - tile.rows.start
        block = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=3)
        block = block.expand(-1, -1, rows, tile.keys)
        return block if mask is None else block + mask

    def mask(self, tile: Tile) -> Tensor | None:
        """Minus infinity for what the tile's rows do not see, spare keys included; None where nothing is hidden."""
        spare = self.spare(tile)
        # In a causal tile nobody sees past the diagonal, so that spare keys need no mask.
        if tile.kind == "causal" or (tile.kind == "full" and not spare):
            return None
        rows = tile.rows.stop - tile.rows.start
        key = tile.pattern if tile.kind == "masked" else tile.keys.to_bytes(8, "little"), self.q.dtype
        # Read once: another thread may clear what is kept in between.
        mask = self._masks.get(key)
        if mask is None:
            if len(self._masks) >= MASKS:
                self._masks.clear()
            hidden = (
                torch.from_numpy(~tile.allowed())
                if tile.kind == "masked"
                else torch.zeros(1, tile.keys, dtype=torch.bool)
            )
            mask = self._masks[key] = torch.zeros(hidden.shape, dtype=self.q.dtype).masked_fill_(hidden, -math.inf)
        mask = pad(mask, (0, spare), value=-math.inf) if spare else mask
        return mask.expand(rows, -1)


def copies(x: Tensor, repeat: int, step: int) -> Tensor:
    """`(1, heads, positions, d)` again and again, each time `step` positions further, a view.

    Shapes:
        returns `(repeat, heads, positions, d)`.
    """
    size, stride = x.shape[1:], x.stride()
    return x.as_strided((repeat, *size), (step * stride[2], *stride[1:]))


def below(x: Tensor, repeat: int) -> Tensor:
    """The rows of copies that lie side by side in the batch, below each other.

    Shapes:
        x `(n, heads, rows, …)` → `(1, heads, n · rows, …)`.
    """
    return x if repeat == 1 else x.transpose(1, 2).flatten(0, 1).transpose(0, 1)[None]


def beside(x: Tensor, repeat: int) -> Tensor:
    """The inverse of `below`, for a known number of copies; a view."""
    if repeat == 1:
        return x
    return x[0].view(x.shape[1], repeat, x.shape[2] // repeat, *x.shape[3:]).transpose(0, 1)


def gathered(grad: Tensor, tile: Tile) -> Tensor:
    """The gradients of the keys of all copies, added up where the copies overlap.

    Shapes:
        grad `(repeat, g, keys, d)` → `(1, g, all keys, d)`.
    """
    if tile.repeat == 1:
        return grad
    (first, last), step = tile.all_spans[0], tile.step
    wide = acc_dtype(grad.dtype)
    total = torch.zeros(1, grad.shape[1], last - first, grad.shape[3], dtype=wide, device=grad.device)
    # The n-th stretch of `step` keys of one copy lies beside, not over, the n-th stretch of the next.
    for n in range(0, tile.keys, step):
        part = grad[:, :, n : n + step]
        copies(total[:, :, n : n + part.shape[2]], tile.repeat, step).add_(part)
    return total
