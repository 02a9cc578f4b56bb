"""q and k in sixteen bits: half the size, and still the model's own weights to within `TOLERANCE`, which is measured.

Three things keep sixteen bits enough. The largest number of a head is brought near 2**14 by a power of two, so nothing
overflows and nothing small is lost. The mean key is taken off every key where that changes no weight (a softmax does
not see what all scores of a row share), since models with large key biases have most of their numbers there. And the
weights are computed from the sixteen bits and compared; heads that miss the tolerance travel in thirty-two.

Where a head has fewer scores than numbers in q and k (a short text), its scores travel instead, each row below its
largest: the error of a weight p is then about p |log p| 2**-12, whatever the head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headscope.attention.paths.formula import normalise, scores
from headscope.recording.recording import Layer

# The largest error of a weight that a head may have in sixteen bits.
TOLERANCE = 7e-4
# How many weights of a layer are compared at most, spread evenly over the queries.
COMPARED = 2**19
# The lowest score that travels: its weight is 0, and float16 holds it.
LOWEST = 6e4
# Two to this power is above every number of a head; float16 ends just below 2**16.
TOP = 14


@dataclass(frozen=True)
class Packed:
    """What stands for q and k: a score is `factor * q·k`.

    Shapes:
        q `(b, h, q, d)` and k `(b, g, k, d)` in float32, of which the groups that are not wide fit float16 exactly;
        factors `(b, h)`; wide `(g,)`; bias as it was, in float16 or float32: `(b|1, h|1, q|1, k|1)`, or one number
        for each offset `key - query`, from `-(q - 1)` to `k - 1`: `(b|1, h|1, offsets)`. Where k is None, q holds the
        scores, `(b, h, q, k)`, with softcap and bias in them.

    Attributes:
        wide: the groups of heads that need thirty-two bits.
        error: the largest difference from the exact weights among those that were compared.
    """

    q: Tensor
    k: Tensor | None
    factors: Float[Tensor, "b h"]
    wide: Bool[Tensor, " g"]
    bias: Tensor | None
    error: float


def packed(layer: Layer) -> Packed:
    """q, k and the bias of a layer in sixteen bits, but for those heads where sixteen are too few."""
    if fewer_scores(layer):
        return scored(layer)
    q, k = layer.q.detach().cpu().double(), layer.k.detach().cpu().double()
    if layer.softcap is None and layer.sinks is None:
        k = k - k.mean(2, keepdim=True).nan_to_num(0.0, 0.0, 0.0)
    (q, of_q), (k, of_k) = levelled(q), levelled(k)
    factors = layer.scale * of_q * of_k.repeat_interleave(layer.heads // layer.k.shape[1], dim=1)
    wide = torch.zeros(k.shape[1], dtype=torch.bool)
    exact = bias_of(layer)
    # One that only depends on the distance is a few numbers and travels in full; another one is worth halving.
    bias = exact if exact is None or exact.ndim == 3 else exact.half()
    while True:
        near_q = rounded(q, wide.repeat_interleave(layer.heads // len(wide)))
        near_k = rounded(k, wide)
        errors = measured(layer, near_q * of_q[..., None, None], near_k * of_k[..., None, None], bias)
        missed = (errors > TOLERANCE).view(len(wide), -1).any(1) & ~wide
        if missed.any() and bias is not None and bias.dtype == torch.float16:
            bias = exact
        elif missed.any():
            wide = wide | missed
        else:
            return Packed(near_q.float(), near_k.float(), factors, wide, bias, float(errors.max()))


def fewer_scores(layer: Layer) -> bool:
    """Whether the scores of the layer's heads are fewer numbers than their q and k."""
    heads, queries, keys = layer.heads, layer.q.shape[2], layer.k.shape[2]
    return heads * queries * keys < (heads * queries + layer.k.shape[1] * keys) * layer.q.shape[3]


def scored(layer: Layer) -> Packed:
    """The scores of a layer, with softcap and bias in them, each row below its largest unless sinks fix their level."""
    allowed = None if layer.runs is None else layer.runs.to("cpu").block(slice(None), 0, layer.k.shape[2])
    q, k = layer.q.detach().cpu().double(), layer.k.detach().cpu().double()
    bias = written_out(bias_of(layer), slice(None), layer.q.shape[2], layer.k.shape[2])
    s = scores(q, k, scale=layer.scale, softcap=layer.softcap, bias=bias, allowed=allowed)
    sinks = None if layer.sinks is None else layer.sinks.detach().cpu().double()
    exact = normalise(s, sinks)[0]
    if sinks is None:
        s = s - s.amax(-1, keepdim=True).nan_to_num(0.0, 0.0, 0.0)
    s = s.clamp(-LOWEST, LOWEST)

    def errors(near: Tensor) -> Float[Tensor, " h"]:
        hidden = near if allowed is None else near.masked_fill(~allowed, -torch.inf)
        return (normalise(hidden, sinks)[0] - exact).abs().nan_to_num(0.0).amax((0, 2, 3))

    groups = layer.k.shape[1]
    wide = (errors(s.half().double()) > TOLERANCE).view(groups, -1).any(1)
    near = rounded(s, wide.repeat_interleave(layer.heads // groups))
    factors = torch.ones(s.shape[:2], dtype=torch.float64)
    return Packed(near.float(), None, factors, wide, None, float(errors(near).max()))


def rounded(x: Float[Tensor, "b n t d"], wide: Bool[Tensor, " n"]) -> Float[Tensor, "b n t d"]:
    """The numbers as they are after travelling: in thirty-two bits where wide, else in sixteen."""
    return torch.where(wide[:, None, None], x.float(), x.half().float()).double()


def levelled(x: Float[Tensor, "b n t d"]) -> tuple[Float[Tensor, "b n t d"], Float[Tensor, "b n"]]:
    """Every head divided by a power of two that brings its largest number near 2**TOP; and these powers."""
    largest = x.abs().nan_to_num(0.0, 0.0, 0.0).amax((2, 3))
    powers = torch.frexp(largest).exponent - TOP
    powers = torch.ldexp(torch.ones_like(largest), powers.masked_fill(largest == 0, 0))
    return x / powers[..., None, None], powers


def measured(layer: Layer, q: Tensor, k: Tensor, bias: Tensor | None) -> Float[Tensor, " h"]:
    """For every head the largest difference between its weights and those that the given q, k and bias have."""
    count, keys = layer.q.shape[2], layer.k.shape[2]
    rows = slice(0, count, max(1, math.ceil(layer.items * layer.heads * count * keys / COMPARED)))
    allowed = None if layer.runs is None else layer.runs.to("cpu").block(rows, 0, keys)
    sinks = None if layer.sinks is None else layer.sinks.detach().cpu().double()

    def weights(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
        bias = written_out(bias, rows, count, keys)
        q, k = q[:, :, rows].cpu().double(), k.cpu().double()
        s = scores(q, k, scale=layer.scale, softcap=layer.softcap, bias=bias, allowed=allowed)
        return normalise(s, sinks)[0]

    difference = weights(q, k, bias) - weights(layer.q.detach(), layer.k.detach(), bias_of(layer))
    return difference.abs().nan_to_num(0.0).amax((0, 2, 3))


def bias_of(layer: Layer) -> Tensor | None:
    """The bias of a layer as `Packed` has it, in float32."""
    if layer.by_offset is not None:
        return layer.by_offset.detach().cpu().float()[None]
    if layer.bias is None:
        return None
    bias = layer.bias.detach().cpu().float()
    line = by_offset(bias)
    return bias if line is None else line


def written_out(bias: Tensor | None, rows: slice, queries: int, keys: int) -> Tensor | None:
    """Some rows of a bias that `bias_of` gave, with four axes."""
    if bias is None:
        return None
    if bias.ndim == 3:
        i, j = torch.arange(queries)[rows, None], torch.arange(keys)
        return bias[..., j - i + queries - 1].double()
    return bias[:, :, rows if bias.shape[2] > 1 else slice(None)].double()


def by_offset(bias: Float[Tensor, "b h q k"]) -> Float[Tensor, "b h offsets"] | None:
    """The bias for every offset `key - query`, from `-(q - 1)` to `k - 1`, where it depends on nothing else."""
    if min(bias.shape[2:]) < 2 or not torch.equal(bias[:, :, 1:, 1:], bias[:, :, :-1, :-1]):
        return None
    return torch.cat([bias[:, :, 1:, 0].flip(-1), bias[:, :, 0]], dim=-1)
