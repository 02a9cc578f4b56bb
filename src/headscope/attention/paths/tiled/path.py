"""The tiled path: only the tiles that a mask leaves, forward and backward, in O(N) memory.

Tiles run on torch's own CPU kernel where it can take them, and with their scores in the open where it cannot: softcap,
dropout, the gradient of a bias, or another device. The two give the same pairs (values, lse), and take the same lse
back.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention.known import known, leaves_python, transforms
from headscope.attention.masks.mask import Mask
from headscope.attention.masks.runs import Runs
from headscope.attention.paths.tiled.loop import Settings, run_tiles, tile_gradients, tile_shapes
from headscope.attention.paths.tiled.operator import TransformedTiles, tiled_op
from headscope.attention.paths.tiled.schedule import Schedule, schedule
from headscope.attention.paths.tiled.tile_bias import bias_values
from headscope.attention.paths.tiled.written_out import formula
from headscope.attention.precision import only_math
from headscope.attention.request import Request
from headscope.attention.second_derivative import gradients, with_derivatives
from headscope.attention.sinks import sinks_gradient
from headscope.compat.tracing import batched

NAME = "tiled"

# A mask is used by many layers and many steps; its tiles are cut once.
_schedules: WeakKeyDictionary[Mask, tuple[tuple[int, ...], Schedule]] = WeakKeyDictionary()


class Tiled(torch.autograd.Function):
    """Values and lse from tiles, and their gradients from the same tiles."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, sinks: Tensor | None, settings: Settings
    ) -> tuple[Tensor, Tensor]:
        """Values and lse of all tiles."""
        added = settings.tile_bias(bias, q, k)
        values, lse = run_tiles(settings.forward_kernel(q, k, v, added), settings.tiles, sinks)
        ctx.save_for_backward(q, k, v, bias, sinks, values, lse)
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        return values, lse

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of q, k, v, of the bias and of the sinks."""
        q, k, v, bias, sinks, values, lse = ctx.saved_tensors
        inputs, (grad, grad_lse) = (q, k, v, bias, sinks), grads
        if not known(*grads) or any(batched(x) for x in grads if x is not None):
            # Many gradients at once: torch.autograd.grad(is_grads_batched=True).
            return (*gradients(formula(ctx.settings, q, k), inputs, grad, grad_lse), None)
        with torch.no_grad():
            results = tiles_backward(ctx.settings, inputs, values, lse, grad, grad_lse, ctx.needs_input_grad)
        if torch.is_grad_enabled():
            # create_graph=True: whoever differentiates again gets the derivatives of the formula.
            results = with_derivatives(formula(ctx.settings, q, k), inputs, grad, grad_lse, results)
        return (*results, None)


def tiles_backward(
    settings: Settings,
    inputs: tuple[Tensor | None, ...],
    values: Tensor,
    lse: Tensor,
    grad: Tensor | None,
    grad_lse: Tensor | None,
    wanted: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Gradients of q, k, v, and of the bias and the sinks where they are wanted."""
    q, k, v, bias, sinks = inputs
    assert q is not None
    assert k is not None
    assert v is not None
    grad = torch.zeros_like(values) if grad is None else grad
    added = settings.tile_bias(bias, q, k)
    kernel = settings.backward_kernel(q, k, v, added, wanted[3])
    dq, dk, dv = tile_gradients(kernel, settings.tiles, grad, values, lse, grad_lse)
    dbias = added.grad.to(bias.dtype) if bias is not None and added is not None and wanted[3] else None
    # The gradients of the tiles need no more of the sinks than their share in the lse.
    dsinks = sinks_gradient(grad, values, lse, grad_lse, sinks) if sinks is not None and wanted[4] else None
    return dq, dk, dv, dbias, dsinks


def refusals(request: Request) -> list[str]:
    """Why the tiles cannot run this."""
    reasons = []
    if leaves_python():
        reasons.append("a graph that runs without headscope cannot hold the operator of the tiles")
    asked = transforms(request.q, request.k, request.v)
    if asked is not None and (asked.forward or asked.order > 1):
        reasons.append("under these transforms the tiles have no second or forward-mode derivative; the formula has")
    if asked is not None and request.dropout:
        reasons.append("the tiles draw their dropout outside of torch.func's randomness")
    if only_math(request.q.device):
        reasons.append("torch's sdpa_kernel(...) allows no kernel but the unfused one")
    return reasons


def run(request: Request) -> tuple[Tensor, Tensor]:
    """Values and lse of a request, tile by tile."""
    q, k, v = request.q, request.k, request.v
    queries, d = q.shape[2:]
    keys, size = v.shape[2:]
    scale = request.scale
    if scale <= 0:
        # The kernel hides keys before it scales: minus infinity must stay below all.
        q, scale = (q * -1.0, -scale) if scale < 0 else (q * 0.0, 1.0)
    # A size of 0 is none that a kernel takes.
    if d != size or d == 0:
        q, k, v = (pad(x, (0, max(d, size, 1) - x.shape[3])) for x in (q, k, v))
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    bias = None if request.bias is None else bias_values(request.bias, queries, keys, q)
    seed = torch.randint(2**62, ()) if request.dropout else None
    if not known(q, k, v, bias, request.sinks):
        start, stop = request.runs() or everything(keys, q.device)
        operator: Any = tiled_op if transforms() is None else TransformedTiles.apply
        values, lse = operator(
            q, k, v, bias, request.sinks, start, stop, seed, scale, request.softcap or 0.0, request.dropout
        )
    else:
        tiles = of(request)
        number = 0 if seed is None else int(seed)
        settings = Settings(tiles, request.runs(), scale, request.softcap, request.dropout, number)
        values, lse = Tiled.apply(q, k, v, bias, request.sinks, settings)  # type: ignore[no-untyped-call]
    return values[..., :size], lse


def of(request: Request) -> Schedule:
    """The tiles of a request; those of a mask are made once."""
    b, h, queries, _ = request.q.shape
    g, keys = request.k.shape[1:3]
    shapes = tile_shapes(
        request.q.device,
        bias=request.bias is not None,
        softcap=request.softcap is not None,
        dropout=bool(request.dropout),
    )
    runs = request.runs()
    if request.mask is None or runs is None:
        return schedule(everything(keys), b, h, h // g, queries, **shapes._asdict())
    sizes = (b, h, g, queries, keys, *shapes)
    cached = _schedules.get(request.mask)
    if cached is None or cached[0] != sizes:
        cached = sizes, schedule(runs, b, h, h // g, queries, **shapes._asdict())
        _schedules[request.mask] = cached
    return cached[1]


def everything(keys: int, device: torch.device | str = "cpu") -> Runs:
    """The runs of no mask at all."""
    stop = torch.full((1, 1, 1, 1), keys, dtype=torch.int32, device=device)
    return Runs(torch.zeros_like(stop), stop)
