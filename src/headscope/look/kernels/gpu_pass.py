"""The one pass over all weights on a GPU: when it runs, and its launch. The definitions are those of `stream.py`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headscope.attention.paths import triton
from headscope.attention.paths.triton import launch
from headscope.attention.paths.triton.path import bias_numbers, runs_and_hulls
from headscope.attention.paths.triton.sizes import padded, size_of
from headscope.attention.request import Request
from headscope.look.kernels.ask import Ask, Seen
from headscope.look.kernels.largest import filled, in_order

# How many of the largest weights of a query the kernel keeps, and what one weight of 1 is in its integers.
LISTED = 16
# Queries whose lists are put in order at a time: what that needs on the way is many times the lists.
ORDERED = 2**15
UNIT = 2.0**40


def refusals(request: Request, ask: Ask) -> list[str]:
    """Why the kernel cannot make this pass; empty when it can."""
    reasons = triton.refusals(request)
    if ask.top > LISTED:
        reasons.append(f"the kernel lists {LISTED} weights of each query, not {ask.top}")
    if ask.mix is not None:
        reasons.append("the kernel adds up no mixtures of queries")
    if ask.candidates is not None or ask.picture is not None:
        reasons.append("the kernel makes no pictures and looks for no pairs")
    return reasons


def run(request: Request, ask: Ask, lse: Tensor | None = None) -> Seen:
    """Everything asked for, in one pass; and a first one for the lse, where it is not at hand.

    Shapes:
        lse `(b, h, q)`, float32.
    """
    from headscope.look.kernels import pass_kernel

    with torch.no_grad():
        q, k = (x.detach() if x.stride(3) == 1 else x.detach().contiguous() for x in (request.q, request.k))
        runs, hulls = runs_and_hulls(request)
        kind, bias = bias_numbers(request.bias, q.shape[2], k.shape[2], q)
        options = launch.Options(runs, hulls, request.scale, request.softcap, 0.0, None, kind, request.device)
        if lse is None:
            # The fewest values that a product of matrices takes: it is the lse that is wanted.
            sinks = None if request.sinks is None else request.sinks.detach()
            lse = launch.forward(q, k, k[..., : min(16, k.shape[3])], bias, sinks, options)[1]
        made = buffers(request, ask)
        size = size_of("look", q.shape[3], q.shape[3], q.dtype, request.device, options.many)
        bounds, align = hulls(size.queries), launch.alignment(q, k)
        b, h, queries, d = q.shape
        keys, (height, width) = k.shape[2], ask.cells
        left_out = left_out_keys(ask, keys, q.device)
        pass_kernel.look[(-(-queries // size.queries) * b * h,)](
            q, k, lse.contiguous(), *made.values(), runs.start, runs.stop, bounds, launch.filled(bias, q),
            launch.filled(left_out, q), *launch.strides(align, q, k), *launch.mask_strides(runs, bounds),
            h, h // k.shape[1], queries, keys, runs.start.shape[3], height, width, -(-keys // width),
            request.scale, request.softcap or 0.0,
            D=d, WIDTH_D=padded(d), BLOCK_M=size.queries, BLOCK_N=size.keys, ALIGN=align, BIAS=kind,
            SOFTCAP=request.softcap is not None, RECEIVED=ask.received, MAPS=ask.maps, TOP=ask.top > 0,
            LEFT_OUT=left_out is not None, PRECISION="tf32x3" if q.dtype == torch.float32 else "tf32",
            num_warps=size.warps, num_stages=size.stages,
        )  # fmt: skip
        return found(request, ask, lse, made)


def buffers(request: Request, ask: Ask) -> dict[str, Tensor]:
    """What the kernel writes, in its order; one number in the place of what is not wanted."""
    b, h, queries, _ = request.q.shape
    keys, device = request.k.shape[2], request.q.device
    rows, columns = -(-queries // ask.cells[0]), -(-keys // ask.cells[1])

    def zeros(*size: int, wanted: bool = True, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(size if wanted else (1,), dtype=dtype, device=device)

    return {
        "entropy": zeros(b, h, queries),
        "concentration": zeros(b, h, queries),
        "peak": zeros(b, h, queries),
        "received": zeros(b, h, keys, wanted=ask.received, dtype=torch.int64),
        "mean_map": zeros(b, h, rows, columns, wanted=ask.maps, dtype=torch.int64),
        "max_map": zeros(b, h, rows, columns, wanted=ask.maps, dtype=torch.int32),
        "listed": zeros(b, h, queries, LISTED, wanted=ask.top > 0),
        "names": zeros(b, h, queries, LISTED, wanted=ask.top > 0, dtype=torch.int32),
    }


def left_out_keys(ask: Ask, keys: int, device: torch.device) -> Tensor | None:
    """Which keys the largest weight does not count, one byte each."""
    if not ask.peak or ask.leave_out is None:
        return None
    marks = torch.zeros(keys, dtype=torch.uint8, device=device)
    return marks.index_fill_(0, ask.leave_out.to(device), 1)


def found(request: Request, ask: Ask, lse: Tensor, made: dict[str, Tensor]) -> Seen:
    """The results in their dtypes and units."""
    seen = Seen(lse)
    for name in ("entropy", "concentration", "peak"):
        if getattr(ask, name):
            setattr(seen, name, made[name])
    if ask.received:
        seen.received = weights_of(made.pop("received"))
    if ask.mean_map:
        queries, keys = request.q.shape[2], request.k.shape[2]
        heights, widths = (
            (length - torch.arange(0, length, cell, device=lse.device)).clamp(max=cell)
            for length, cell in zip((queries, keys), ask.cells, strict=True)
        )
        seen.mean_map = weights_of(made["mean_map"]) / (heights[:, None] * widths)
    if ask.max_map:
        seen.max_map = made["max_map"].view(torch.float32)
    if ask.top:
        seen.top_weights, seen.top_keys = largest(made["listed"], made["names"], lse, ask.top)
    return seen


def weights_of(integers: Tensor) -> Tensor:
    """Sums of weights from the integers in which they were gathered."""
    return (integers.double() / UNIT).float()


def largest(listed: Tensor, names: Tensor, lse: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of the listed scores as weights, in falling order, and their keys.

    Where a query sees fewer keys, keys that it does not see fill the list: their weight is 0. Some queries at a time,
    and in the place of the scores where all are wanted: lists of many heads and queries are most of what a pass needs.
    """
    rows = listed.flatten(0, 2)
    weights = rows if count == LISTED else rows.new_empty(len(rows), count)
    keys = torch.empty(len(rows), count, dtype=torch.int64, device=rows.device)
    below = lse.masked_fill(lse.isneginf(), 0.0).flatten().unsqueeze(-1) / math.log(2.0)
    names = names.flatten(0, 2)
    for first in range(0, len(rows), ORDERED):
        part = slice(first, first + ORDERED)
        scores, found = in_order(rows[part], names[part].long())
        scores, found = scores[:, :count], found[:, :count]
        keys[part] = filled(found, scores.isneginf())
        weights[part] = torch.exp2(scores - below[part])
    return weights.view(*lse.shape, count), keys.view(*lse.shape, count)
