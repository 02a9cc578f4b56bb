"""A matrix of weights as a head: what its bias, mask and sink must be for its weights to be this matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headscope.attention.bias import DenseBias
from headscope.attention.masks.mask import Intervals, Mask
from headscope.attention.masks.runs import Runs
from headscope.errors import LookError
from headscope.look.scoring import Scoring
from headscope.shapes import acc_dtype, shape

# How far from 1 the weights of a row may sum up to: rounding of the softmax that made them.
ROUNDING = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 2e-2}


def checked(weights: Any, *, sinks: bool) -> Tensor:
    """The matrix in float32 or better.

    Raises:
        LookError: it is not a matrix, or a row is not one of weights.
    """
    P: Tensor = torch.as_tensor(weights).detach()
    if P.ndim != 2 or P.dtype not in ROUNDING:
        raise LookError(
            f"Head.from_weights: P is {shape(P)} {P.dtype}; give one head's (queries, keys) in floating point, such as "
            "attentions[layer][item, head]."
        )
    sums, rounding = P.double().sum(1), ROUNDING[P.dtype]
    at_most = sums <= 1 + rounding
    right = (at_most if sinks else (sums - 1).abs() <= rounding) | (sums == 0)
    wrong = ((P < 0).any(1) | ~P.isfinite().all(1) | ~right).nonzero()[:, 0]
    if len(wrong):
        row = int(wrong[0])
        raise LookError(
            f"Head.from_weights: row {row} of P is from {float(P[row].min()):.3g} to {float(P[row].max()):.3g} and has "
            f"the sum {float(sums[row]):.3g}; weights are 0 or more and their sum is 1, or 0 where a query sees "
            "nothing. Where the rest went to a sink, give sinks=True."
        )
    return P.to(acc_dtype(P.dtype))


def scoring_of(P: Tensor, *, sinks: bool) -> Scoring:
    """The scoring with which queries and keys of zeros have these weights.

    A score is the log of a weight; a weight of 0 hides nothing, and a row of zeros is a query that sees nothing. With a
    sink of logit 0 and a row that sums to s, all its scores are higher by `-log(1 - s)`: the rest is the sink's.
    """
    logs = P.log()
    sees = (P > 0).any(1)
    if sinks:
        rest = (1 - P.sum(1, keepdim=True)).clamp_min(torch.finfo(P.dtype).eps / 4)
        logs = logs - rest.log()
    mask: Mask | None = None
    if not sees.all():
        stop = torch.where(sees, P.shape[1], 0).int()[None, None, :, None]
        mask = Intervals(Runs(torch.zeros_like(stop), stop), P.shape[1])
        logs = logs.masked_fill(~sees[:, None], 0.0)
    return Scoring(mask, DenseBias(logs[None, None]), 1.0, None, P.new_zeros(1) if sinks else None)
