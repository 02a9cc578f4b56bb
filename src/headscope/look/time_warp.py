"""Dynamic time warping over the weights of cross-attention: a path along which tokens and frames only go forward."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

# Frames over whose median a weight is smoothed, as Whisper does.
WIDTH = 7


class Path(NamedTuple):
    """The cells of a path from the first row and column to the last, in order: `rows` and `columns`, `(steps,)`."""

    rows: Int64[Tensor, " steps"]
    columns: Int64[Tensor, " steps"]


def warped(cost: Float64[Tensor, "q k"]) -> Path:
    """The path of the least sum of costs from the first cell to the last, each step one row on, one column on, or both.

    The table of least sums is filled a diagonal at a time: `q + k` operations on vectors, and `q · k` numbers.

    Source: Sakoe & Chiba 1978. Of equal paths the one that Whisper's own timestamps follow.

    Example:
        >>> path = warped(1 - torch.eye(2, 3, dtype=torch.float64))
        >>> list(zip(path.rows.tolist(), path.columns.tolist()))
        [(0, 0), (1, 1), (1, 2)]
    """
    q, k = cost.shape
    least = torch.full((q + 1, k + 1), torch.inf, dtype=torch.float64)
    least[0, 0] = 0.0
    for diagonal in range(2, q + k + 1):
        rows = torch.arange(max(1, diagonal - k), min(q, diagonal - 1) + 1)
        columns = diagonal - rows
        both, down, along = least[rows - 1, columns - 1], least[rows - 1, columns], least[rows, columns - 1]
        least[rows, columns] = cost[rows - 1, columns - 1] + torch.minimum(torch.minimum(both, down), along)
    sums = least.tolist()
    i, j, found = q, k, []
    while i > 0 and j > 0:
        found.append((i - 1, j - 1))
        both, down, along = sums[i - 1][j - 1], sums[i - 1][j], sums[i][j - 1]
        if both < down and both < along:
            i, j = i - 1, j - 1
        elif down < both and down < along:
            i -= 1
        else:
            j -= 1
    rows, columns = torch.tensor(found[::-1]).view(-1, 2).unbind(1)
    return Path(rows, columns)


def aligned(weights: Float64[Tensor, "h q k"]) -> Path:
    """The path of the weights of several heads: their mean, each frame's weights standardised over the tokens.

    A frame on which every token rests, such as a sink, says nothing of any of them: standardised it is 0 for all. Over
    `WIDTH` frames the median is taken.

    Source: the word timestamps of Radford et al. 2022 ("Robust Speech Recognition via Large-Scale Weak Supervision").
    """
    deviation, mean = torch.std_mean(weights, dim=1, keepdim=True, correction=0)
    standard = torch.where(deviation > 0, (weights - mean) / deviation.clamp(min=1e-30), 0.0)
    return warped(-smooth(standard).mean(0))


def smooth(x: Float64[Tensor, "h q k"]) -> Float64[Tensor, "h q k"]:
    """The median over `WIDTH` frames around each; as it is where there are too few."""
    side = WIDTH // 2
    if x.shape[-1] <= side:
        return x
    return torch.nn.functional.pad(x, (side, side), mode="reflect").unfold(-1, WIDTH, 1).median(-1).values


def rise(weights: Float64[Tensor, "q k"]) -> float:
    """How far a head moves along with the tokens: the correlation of token and frame, each pair counted by its weight.

    1 for a straight diagonal, 0 for weights that are the same for every token; a head that runs back is below 0.

    Example:
        >>> round(rise(torch.eye(5, dtype=torch.float64)), 6), rise(torch.full((5, 5), 0.2, dtype=torch.float64))
        (1.0, 0.0)
    """
    total = weights.sum()
    if not total > 0:
        return 0.0
    share = weights / total
    i, j = (torch.arange(n, dtype=torch.float64) for n in share.shape)
    i, j = i - share.sum(1) @ i, j - share.sum(0) @ j
    spread = torch.sqrt((share.sum(1) @ i.square()) * (share.sum(0) @ j.square()))
    return float(i @ share @ j / spread) if spread > 1e-12 else 0.0
