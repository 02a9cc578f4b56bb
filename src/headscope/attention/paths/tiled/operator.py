"""The tiled path as one operator: torch.compile and torch.export see a single call and keep their graph whole."""

import torch
from torch import Tensor

from headscope.attention.masks.runs import Runs
from headscope.attention.paths.tiled import flash
from headscope.attention.paths.tiled.loop import Settings, run_tiles, tile_gradients
from headscope.attention.paths.tiled.schedule import schedule
from headscope.attention.paths.tiled.tile_bias import TileBias
from headscope.attention.sinks import sinks_gradient


def settings(
    q: Tensor,
    k: Tensor,
    start: Tensor,
    stop: Tensor,
    scale: float,
    softcap: float,
    dropout: float,
    seed: int,
    biased: bool,
) -> Settings:
    """The tiles of these runs, and what else the call asks of them."""
    b, h, queries, _ = q.shape
    repeat = not biased and not softcap and not dropout and flash.runs_on(q.device)
    tiles = schedule(Runs(start, stop), b, h, h // k.shape[1], queries, square=not biased, repeat=repeat)
    return Settings(tiles, scale, softcap or None, dropout, seed)


@torch.library.custom_op("headscope::tiled", mutates_args=())
def tiled_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    sinks: Tensor | None,
    start: Tensor,
    stop: Tensor,
    scale: float,
    softcap: float,
    dropout: float,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Values and lse; a softcap of 0 is none."""
    asked = settings(q, k, start, stop, scale, softcap, dropout, seed, bias is not None)
    added = None if bias is None else TileBias(bias, q.shape[2])
    return run_tiles(asked.forward_kernel(q, k, v, added), asked.tiles, sinks)


@tiled_op.register_fake
def _(q, k, v, bias, sinks, start, stop, scale, softcap, dropout, seed):  # type: ignore[no-untyped-def]
    b, h, queries, _ = q.shape
    lse = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(b, queries, h, v.shape[3]).transpose(1, 2), q.new_empty(b, h, queries, dtype=lse)


@torch.library.custom_op("headscope::tiled_gradients", mutates_args=())
def tiled_gradients(
    grad: Tensor,
    grad_lse: Tensor,
    values: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    sinks: Tensor | None,
    start: Tensor,
    stop: Tensor,
    scale: float,
    softcap: float,
    dropout: float,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, of the bias and of the sinks (empty where there are none)."""
    asked = settings(q, k, start, stop, scale, softcap, dropout, seed, bias is not None)
    added = None if bias is None else TileBias(bias, q.shape[2])
    kernel = asked.backward_kernel(q, k, v, added, bias_trains=bias is not None)
    dq, dk, dv = tile_gradients(kernel, asked.tiles, grad, values, lse, grad_lse)
    dbias = q.new_empty(0) if added is None or bias is None else added.grad.to(bias.dtype)
    dsinks = q.new_empty(0) if sinks is None else sinks_gradient(grad, values, lse, grad_lse, sinks)
    return dq, dk, dv, dbias, dsinks


@tiled_gradients.register_fake
def _(grad, grad_lse, values, lse, q, k, v, bias, sinks, start, stop, scale, softcap, dropout, seed):  # type: ignore[no-untyped-def]
    dbias = q.new_empty(0) if bias is None else torch.empty_like(bias)
    dsinks = q.new_empty(0) if sinks is None else torch.empty_like(sinks)
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), dbias, dsinks


def _remember(ctx, inputs, output):  # type: ignore[no-untyped-def]
    q, k, v, bias, sinks, start, stop, *ctx.numbers = inputs
    ctx.save_for_backward(*output, q, k, v, bias, sinks, start, stop)


def _backward(ctx, grad, grad_lse):  # type: ignore[no-untyped-def]
    *grads, dbias, dsinks = tiled_gradients(grad, grad_lse, *ctx.saved_tensors, *ctx.numbers)
    wanted = ctx.needs_input_grad[3:5]
    return *grads, dbias if wanted[0] else None, dsinks if wanted[1] else None, *(None,) * 6


tiled_op.register_autograd(_backward, setup_context=_remember)
