"""Which path runs what on a GPU: a table for each class of device, and the choice that it steers.

`python benchmarks/gpu.py` measures the rates of every path and prints which entry of this table they speak against.
Until a row says "measured" its order is an estimate: torch's own kernels where they take a call as it is, the Triton
kernel where they would need the mask as a matrix, FlexAttention only by name, since it compiles for every length.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

from headscope.attention.bias import OffsetBias
from headscope.attention.device import Device
from headscope.attention.known import known
from headscope.attention.masks.mask import Dense
from headscope.attention.paths import formula, fused, tiled, triton
from headscope.attention.request import Request

# More runs than this for each query are no structure that a kernel could use.
MANY_RUNS = 16
# Pairs of query and key up to which a structured mask may be written out where there is no kernel for it.
WRITTEN_OUT = 2**20


class Order(NamedTuple):
    """Paths for each kind of call, the first one that can run it is taken.

    Attributes:
        source: where the order comes from: a measurement, or an estimate.
        plain: q, k and v, and perhaps a causal mask.
        structured: a mask of few runs, a bias by distance, softcap, sinks, or the lse.
        matrix: a mask or a bias that exists as a matrix already.
    """

    source: str
    plain: tuple[ModuleType, ...] = (fused, triton, tiled, formula)
    structured: tuple[ModuleType, ...] = (triton, fused, tiled, formula)
    matrix: tuple[ModuleType, ...] = (fused, triton, tiled, formula)


# By compute capability: the row of the highest one that is not above the device's.
ORDERS: dict[tuple[int, int], Order] = {
    (0, 0): Order("estimate"),
    (8, 0): Order("estimate"),
    (9, 0): Order("estimate"),
    (10, 0): Order("estimate"),
}

REASONS = {
    "plain": "torch's fused kernel runs it as it is",
    "structured": "one kernel over the runs of the mask, which is never written out",
    "matrix": "the mask or the bias is a matrix already, and torch's fused kernel reads it",
}


def order_for(device: Device) -> Order:
    """The row of a device."""
    return ORDERS[max(capability for capability in ORDERS if capability <= (device.capability or (0, 0)))]


def kind_of(request: Request) -> str:
    """Which column of the table a call belongs to."""
    mask, bias = request.mask, request.bias
    if request.softcap is None and request.sinks is None and not request.needs_lse:
        if bias is None and (mask is None or request.is_causal):
            return "plain"
        if isinstance(mask, Dense) or (bias is not None and not isinstance(bias, OffsetBias)):
            return "matrix"
    if not known(request.q):
        # How many runs there are is not known there, but whether they come from a matrix is.
        return "matrix" if mask is not None and mask.is_written else "structured"
    runs = request.runs()
    return "matrix" if runs is not None and runs.start.shape[3] > MANY_RUNS else "structured"


def choose(request: Request, device: Device) -> tuple[ModuleType, str]:
    """The path that runs a request on a GPU, and the reason."""
    kind = kind_of(request)
    refused: list[str] = []
    for path in getattr(order_for(device), kind):
        reasons = path.refusals(request)
        if path is fused and kind == "structured" and request.q.shape[2] * request.k.shape[2] > WRITTEN_OUT:
            reasons = [*reasons, "torch's fused kernels would need the mask written out"]
        if not reasons:
            break
        refused.extend(reason for reason in reasons if reason not in refused)
    expected = triton if kind == "structured" else fused
    return path, REASONS[kind] if path is expected else "; ".join(refused)
