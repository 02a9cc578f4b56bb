"""The Triton path: attention over the runs of a mask in one kernel, forward and backward, in O(N) memory.

What a kernel is compiled for are dtype, head sizes and which options there are. A second length, batch or mask compiles
nothing.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from headscope.attention.bias import Alibi, Bias, OffsetBias
from headscope.attention.device import Device, capturing
from headscope.attention.equation import attention
from headscope.attention.known import known, leaves_python, transforms
from headscope.attention.masks.mask import Mask
from headscope.attention.masks.runs import Runs
from headscope.attention.paths.triton.hulls import hulls
from headscope.attention.paths.triton.launch import LINE, NO_BIAS, SLOPE, Options
from headscope.attention.paths.triton.sizes import shared_memory, size_of
from headscope.attention.precision import autocast_off, only_math
from headscope.attention.request import Request
from headscope.attention.second_derivative import Formula, gradients, with_derivatives
from headscope.shapes import acc_dtype

NAME = "triton"

# The first Triton with everything the kernels use; torch 2.10 brings 3.6.
OLDEST = (3, 5)
# The largest head, in numbers.
LARGEST = 256
DTYPES = (torch.float16, torch.bfloat16, torch.float32)

# A mask is used by many layers and many steps; the hulls of its runs are made once for each size of blocks.
_hulls: WeakKeyDictionary[Mask, tuple[tuple[Any, ...], dict[int, Tensor]]] = WeakKeyDictionary()


def refusals(request: Request) -> list[str]:
    """Why the Triton kernels cannot run this; empty when they can."""
    device = request.device
    reasons = on(device)
    dtype, d, e = request.q.dtype, request.q.shape[3], request.v.shape[3]
    if dtype not in DTYPES:
        reasons.append(f"the Triton kernels compute in float32 and have no {str(dtype).removeprefix('torch.')}")
    if device.interpreted and dtype == torch.bfloat16:
        reasons.append("Triton's interpreter multiplies bfloat16 as integers; give float32 or float16 there")
    if 0 in (*request.q.shape, *request.v.shape):
        reasons.append("the Triton kernels need at least one query, one key and one feature")
    elif max(d, e) > LARGEST:
        reasons.append(f"the Triton kernels have head sizes up to {LARGEST}, not {max(d, e)}")
    elif dtype in DTYPES and not reasons and not device.interpreted:
        reasons.extend(too_large(request, device))
    if request.bias is not None and not isinstance(request.bias, OffsetBias):
        reasons.append("the Triton kernels add a bias by distance (ALiBi, T5), not one that is written out")
    if leaves_python():
        reasons.append("a graph that runs without headscope cannot hold the operator of the Triton kernels")
    if transforms(request.q, request.k, request.v) is not None:
        reasons.append("the Triton kernels have no derivatives under torch.func's transforms and in forward mode")
    if only_math(request.q.device):
        reasons.append("torch's sdpa_kernel(...) allows no kernel but the unfused one")
    return reasons


def on(device: Device) -> list[str]:
    """Why a device has no Triton kernels."""
    if not device.interpreted and (device.kind != "cuda" or device.capability is None):
        return [f"Triton compiles for NVIDIA GPUs, and q is on {device.kind!r}"]
    if device.triton is None:
        return ["Triton is not installed: pip install triton"]
    reasons = []
    if tuple(int(part) for part in device.triton.split(".")[:2]) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        reasons.append(f"Triton {device.triton} is installed and the kernels need {wanted}: pip install -U triton")
    if not device.interpreted and device.capability is not None and device.capability < (8, 0):
        found = ".".join(map(str, device.capability))
        reasons.append(f"the Triton kernels need compute capability 8.0 (A100) or later, and this GPU has {found}")
    return reasons


def too_large(request: Request, device: Device) -> list[str]:
    """Why the blocks of these head sizes do not fit into the shared memory of a device."""
    dtype, d, e = request.q.dtype, request.q.shape[3], request.v.shape[3]
    kernels = ("forward", "queries", "keys") if request.trains else ("forward", "split")
    needed = max(shared_memory(size_of(kernel, d, e, dtype, device), d, e, dtype) for kernel in kernels)
    if needed <= device.shared_memory:
        return []
    return [
        f"head sizes {d} and {e} need {needed // 1024} KB of shared memory and this GPU has "
        f"{device.shared_memory // 1024} KB"
    ]


class TritonAttention(torch.autograd.Function):
    """Values and lse from one kernel, and their gradients from two more."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, sinks: Tensor | None, options: Options
    ) -> tuple[Tensor, Tensor]:
        """Values and lse."""
        from headscope.attention.paths.triton import launch, launch_split

        decodes = not any(ctx.needs_input_grad) and launch_split.few_queries(q, k, options)
        values, lse = (launch_split if decodes else launch).forward(q, k, v, bias, sinks, options)
        ctx.save_for_backward(q, k, v, bias, sinks, values, lse)
        ctx.options = options
        ctx.set_materialize_grads(False)
        return values, lse

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of q, k, v, of the bias and of the sinks."""
        from headscope.attention.paths.triton import launch_backward

        *inputs, values, lse = ctx.saved_tensors
        grad, grad_lse = grads
        written = formula(ctx.options, *inputs[:2])
        if not known(*grads):
            # Many gradients at once: torch.autograd.grad(is_grads_batched=True).
            return (*gradients(written, inputs, grad, grad_lse), None)
        with torch.no_grad():
            wanted = ctx.needs_input_grad
            results = launch_backward.backward(ctx.options, inputs, values, lse, grad, grad_lse, wanted)
        if torch.is_grad_enabled():
            # create_graph=True: whoever differentiates again gets the derivatives of the formula.
            results = with_derivatives(written, inputs, grad, grad_lse, results)
        return (*results, None)


def run(request: Request) -> tuple[Tensor, Tensor]:
    """Values and lse of a request."""
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (request.q, request.k, request.v))
    kind, bias = bias_numbers(request.bias, q.shape[2], k.shape[2], q)
    # A seed on the device: a CUDA graph draws a new one at every replay.
    seed = torch.randint(2**62, (1,), device=q.device) if request.dropout else None
    if not known(q, k, v, bias, request.sinks):
        from headscope.attention.paths.triton.operator import triton_op

        numbers = request.scale, request.softcap or 0.0, request.dropout, kind, request.trains
        traced: tuple[Tensor, Tensor] = triton_op(q, k, v, bias, request.sinks, *runs_of(request), seed, *numbers)
        return traced
    runs, cached = runs_and_hulls(request)
    options = Options(runs, cached, request.scale, request.softcap, request.dropout, seed, kind, request.device)
    with autocast_off(q):
        values, lse = TritonAttention.apply(q, k, v, bias, request.sinks, options)  # type: ignore[no-untyped-call]
    return values, lse


def bias_numbers(bias: Bias | None, queries: int, keys: int, like: Tensor) -> tuple[int, Tensor | None]:
    """The kind of a bias by distance, and its numbers with their autograd history."""
    if bias is None:
        return NO_BIAS, None
    assert isinstance(bias, OffsetBias)
    if isinstance(bias, Alibi):
        return SLOPE, bias.slopes.to(like.device, torch.float32).contiguous()
    return LINE, bias.line(queries, keys, like.device, torch.float32).contiguous()


def runs_of(request: Request) -> Runs:
    """The runs of the mask; without one, all keys for everyone."""
    runs = request.runs()
    if runs is None:
        stop = torch.full((1, 1, 1, 1), request.k.shape[2], dtype=torch.int32, device=request.q.device)
        runs = Runs(torch.zeros_like(stop), stop)
    return runs


def runs_and_hulls(request: Request) -> tuple[Runs, Any]:
    """The runs of the mask, and a function that gives their hulls for a size of blocks; made once for each mask."""
    queries, keys = request.q.shape[2], request.k.shape[2]
    runs = Runs(*(side.contiguous() for side in runs_of(request)))
    sizes = queries, keys, request.q.device, runs.start.shape
    keeps = request.mask is not None and known(request.q, runs.start) and not capturing(request.q.device)
    found = remembered(request.mask, sizes) if request.mask is not None and keeps else {}

    def of(block: int) -> Tensor:
        if block not in found:
            found[block] = hulls(runs, queries, keys, block).contiguous()
        return found[block]

    return runs, of


def remembered(mask: Mask, sizes: tuple[Any, ...]) -> dict[int, Tensor]:
    """Where the hulls of a mask are kept."""
    cached = _hulls.get(mask)
    if cached is None or cached[0] != sizes:
        cached = _hulls[mask] = sizes, {}
    return cached[1]


def formula(options: Options, q: Tensor, k: Tensor) -> Formula:
    """The same call, written out as one differentiable formula of q, k, v, the numbers of the bias, and the sinks."""
    queries, keys = q.shape[2], k.shape[2]

    def values_and_lse(
        q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, sinks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return attention(
            q,
            k,
            v,
            None if bias is None else written_out(bias, options.bias_kind, queries, keys).to(acc_dtype(q.dtype)),
            sinks,
            scale=options.scale,
            softcap=options.softcap,
            allowed=options.runs.block(slice(0, queries), 0, keys).expand(-1, -1, queries, -1),
            keep=dropout_factors(options, q, k) if options.dropout else 0.0,
        )

    return values_and_lse


def written_out(bias: Tensor, kind: int, queries: int, keys: int) -> Tensor:
    """The bias of all queries and keys, `(1, h, q, k)`, from its slopes or its line."""
    offsets = torch.arange(keys, device=bias.device) - torch.arange(queries, device=bias.device)[:, None]
    if kind == SLOPE:
        return -(bias[:, None, None] * (offsets - (keys - queries)).abs())[None]
    return bias[None, :, offsets + queries - 1]


def dropout_factors(options: Options, q: Tensor, k: Tensor) -> Tensor:
    """What dropout multiplies every weight with, `(b, h, q, k)`: the same as in the kernels."""
    from headscope.attention.paths.triton import launch_backward

    return launch_backward.dropout_factors(options, q, k)
