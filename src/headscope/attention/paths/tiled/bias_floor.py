"""A bias by distance that ends where the weights behind it are far below what a sum can notice.

Far down a slope of ALiBi weights become denormal numbers, which an Intel processor multiplies many times more slowly (8
heads of 4096 tokens in float32: the backward takes 3.7 times as long). Lifted to a floor they are numbers as all
others, and the results are the same to the last bit or nearly so.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headscope.attention.masks.runs import Runs

# What all lifted keys of a row weigh together, as a share of the machine's epsilon, at most: e^-5.
SHARE = 5.0
# A weight at the floor is above the smallest normal number by this factor, e^7: its products are normal numbers too.
ABOVE = 7.0


def with_floor(
    line: Float[Tensor, "h offsets"],
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    scale: float,
    softcap: float | None,
    runs: Runs | None,
) -> Float[Tensor, "h offsets"]:
    """The numbers of a bias by distance, those far below the largest one lifted, head by head.

    A row's scores without the bias differ by at most 2 · spread, with spread = scale · max ‖q‖ · max ‖k - mean k‖
    (Cauchy and Schwarz; a softcap bounds them too). So the keys below a floor of

        ln(number of keys) - ln(epsilon) + SHARE + 2 · spread

    under the bias of a key that the row sees weigh less than epsilon · e^-SHARE together, lifted or not. Heads keep
    their numbers where that floor is too deep to help, and where some row does not see the key with the largest bias.
    Minus infinity, which hides a key, stays.
    """
    if line.device.type != "cpu" or q.dtype != line.dtype or not (q.numel() and k.numel()):
        return line
    info = torch.finfo(line.dtype)
    deepest = -math.log(info.tiny) - ABOVE
    low, high = line.aminmax(dim=1)
    if not bool((high - low > deepest).any()):
        return line
    h, g = q.shape[1], k.shape[1]
    norms = torch.linalg.vector_norm(k - k.mean(2, keepdim=True), dim=3).amax((0, 2)).repeat_interleave(h // g)
    spread = scale * torch.linalg.vector_norm(q, dim=3).amax((0, 2)) * norms
    if softcap is not None:
        spread = spread.clamp_max(softcap)
    depth = math.log(k.shape[2]) - math.log(info.eps) + SHARE + 2 * spread
    floor = torch.where((depth <= deepest) & sees_highest(line, q.shape[2], k.shape[2], runs), high - depth, -math.inf)
    return torch.where((line < floor[:, None]) & (line > -math.inf), floor[:, None], line)


def sees_highest(line: Float[Tensor, "h offsets"], queries: int, keys: int, runs: Runs | None) -> Bool[Tensor, " h"]:
    """For each head whether every query sees the key at the offset with the largest bias, or none at all."""
    positions = line.argmax(1)[:, None] + torch.arange(queries) - (queries - 1)
    inside = (positions >= 0) & (positions < keys)
    if runs is None:
        return inside.all(1)
    start, stop = (side.to(positions) for side in runs)
    at = positions[None, :, :, None]
    seen = ((start <= at) & (at < stop)).any(3) & inside
    return (seen | (stop <= start).all(3)).all(2).all(0)
