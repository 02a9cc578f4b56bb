"""A head as a small picture: the largest weight of each block of cells, so that thin stripes stay in sight."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.look.head import Head
from headscope.look.kernels.picture_cells import PictureCells, seen_cells

# Weights that are looked at together: 2**20 float32 values stay in a core's cache.
BLOCK = 2**20


def picture(head: Head, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
    """The weights of a head, pooled to at most `rows` x `columns`: the largest of each block.

    Shapes:
        returns `(min(rows, q), min(columns, k))`, float32; minus one where no key of the block may be seen.

    Example:
        >>> picture(Head(10 * torch.eye(4), 10 * torch.eye(4)), 2, 2).round().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    q, k = len(head.q), len(head.k)
    made = PictureCells((rows, columns), 1, q, k, torch.zeros(()))
    step = max(1, BLOCK // k)
    for first in range(0, q, step):
        part = slice(first, min(first + step, q))
        made.take(slice(0, 1), part, 0, head.weights(part).float().cpu()[None])
    return marked(head, made.largest[0])


def marked(head: Head, largest: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The largest weights of the cells of a picture, with minus one where no key of the cell may be seen."""
    if head.mask is None:
        return largest
    return largest.masked_fill(~seen_cells(head.runs, (len(largest), largest.shape[1]), len(head.k)), -1.0)


def top(weights: Float[Tensor, "rows columns"], keys: int) -> float:
    """The top of a linear scale: the largest weight, or four times what equal weights would be where that is more.

    An even head looks even so, and not as dark as one with a single large weight in each row.
    """
    return max(float(weights.max()), min(1.0, 4 / keys))
