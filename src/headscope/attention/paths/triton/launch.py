"""From tensors to launches: strides, block sizes and options of each kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headscope.attention.device import Device
from headscope.attention.masks.runs import Runs
from headscope.attention.paths.triton.sizes import Size, padded, size_of

# Kinds of bias by distance, as the kernels number them.
NO_BIAS, LINE, SLOPE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Options:
    """What a call asks of its kernels besides the tensors that have gradients.

    Attributes:
        runs: the mask.
        hulls: the hulls of the runs for a size of blocks of queries.
        bias_kind: none, one number for each distance, or one slope for each head.
        seed: one int64 on the device, so that dropout needs no number from Python.
    """

    runs: Runs
    hulls: Callable[[int], Tensor]
    scale: float
    softcap: float | None
    dropout: float
    seed: Tensor | None
    bias_kind: int
    device: Device

    @property
    def many(self) -> bool:
        """Whether there are options that make a kernel hold more numbers at once."""
        return self.softcap is not None or self.dropout > 0 or self.bias_kind == LINE


def forward(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, sinks: Tensor | None, options: Options
) -> tuple[Tensor, Tensor]:
    """Values and lse.

    Shapes:
        values `(b, h, q, e)`, laid out as `(b, q, h, e)` so that merging the heads is free; lse `(b, h, q)` float32.
    """
    from headscope.attention.paths.triton import forward_kernel

    b, h, queries, d = q.shape
    e = v.shape[3]
    values = q.new_empty(b, queries, h, e).transpose(1, 2)
    lse = torch.empty(b, h, queries, dtype=torch.float32, device=q.device)
    size = size_of("forward", d, e, q.dtype, options.device, options.many)
    hulls = options.hulls(size.queries)
    align = alignment(q, k, v, values)
    blocks = -(-queries // size.queries)
    forward_kernel.forward[(blocks * b * h,)](
        q, k, v, values, lse, options.runs.start, options.runs.stop, hulls, filled(bias, q), filled(sinks, q),
        filled(options.seed, q), *strides(align, q, k, v, values), *mask_strides(options.runs, hulls),
        h, h // k.shape[1], queries, k.shape[2], options.runs.start.shape[3],
        options.scale, options.softcap or 0.0, options.dropout,
        SINKS=sinks is not None, **constants(q, v, size, align, options),
    )  # fmt: skip
    return values, lse


def constants(q: Tensor, v: Tensor, size: Size, align: int, options: Options) -> dict[str, Any]:
    """What a kernel is compiled for: head sizes, blocks and which options there are."""
    d, e = q.shape[3], v.shape[3]
    return {
        "D": d, "E": e, "WIDTH_D": padded(d), "WIDTH_E": padded(e), "BLOCK_M": size.queries, "BLOCK_N": size.keys,
        "ALIGN": align, "BIAS": options.bias_kind, "SOFTCAP": options.softcap is not None,
        "DROPOUT": options.dropout > 0, "PRECISION": "tf32x3" if q.dtype == torch.float32 else "tf32",
        "num_warps": size.warps, "num_stages": size.stages,
    }  # fmt: skip


def alignment(*tensors: Tensor) -> int:
    """How many numbers every stride is a multiple of: as many as 16 bytes hold, or 1.

    It follows from the head size and the layout, not from the length, and lets the compiler load 16 bytes at a time.
    """
    unit = 16 // tensors[0].element_size()
    return unit if all(s % unit == 0 for x in tensors for s in x.stride()[:3]) else 1


def strides(align: int, *tensors: Tensor) -> list[int]:
    """The strides of batch, head and row of each tensor, in units."""
    return [s // align for x in tensors for s in x.stride()[:3]]


def mask_strides(runs: Runs, hulls: Tensor) -> list[int]:
    """The strides of batch, head and row of runs and hulls; 0 where all share them."""
    return [
        stride if size > 1 else 0
        for x in (runs.start, hulls)
        for size, stride in zip(x.shape[:3], x.stride()[:3], strict=True)
    ]


def filled(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A tensor, or any other in a place that is not read."""
    return other if tensor is None else tensor
