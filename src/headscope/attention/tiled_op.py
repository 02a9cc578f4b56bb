"""The tiled path as one operator: torch.compile and torch.export see a single call and keep their graph whole."""

import torch
from torch import Tensor

from headscope.attention.runs import Runs
from headscope.attention.schedule import schedule
from headscope.attention.tile_bias import TileBias
from headscope.attention.tile_loop import Settings, run_tiles, tile_gradients


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
    repeat = not biased and not softcap and not dropout and q.device.type == "cpu"
    tiles = schedule(Runs(start, stop), b, h, h // k.shape[1], queries, square=not biased, repeat=repeat)
    return Settings(tiles, scale, softcap or None, dropout, seed)


@torch.library.custom_op("headscope::tiled", mutates_args=())
def tiled_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
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
    return run_tiles(asked.forward_kernel(q, k, v, added), asked.tiles)


@tiled_op.register_fake
def _(q, k, v, bias, start, stop, scale, softcap, dropout, seed):  # type: ignore[no-untyped-def]
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
    start: Tensor,
    stop: Tensor,
    scale: float,
    softcap: float,
    dropout: float,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and of the bias (empty where there is none)."""
    asked = settings(q, k, start, stop, scale, softcap, dropout, seed, bias is not None)
    added = None if bias is None else TileBias(bias, q.shape[2])
    kernel = asked.backward_kernel(q, k, v, added, bias_trains=bias is not None)
    dq, dk, dv = tile_gradients(kernel, asked.tiles, grad, values, lse, grad_lse)
    return dq, dk, dv, q.new_empty(0) if added is None or bias is None else added.grad.to(bias.dtype)


@tiled_gradients.register_fake
def _(grad, grad_lse, values, lse, q, k, v, bias, start, stop, scale, softcap, dropout, seed):  # type: ignore[no-untyped-def]
    dbias = q.new_empty(0) if bias is None else torch.empty_like(bias)
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), dbias


def _remember(ctx, inputs, output):  # type: ignore[no-untyped-def]
    q, k, v, bias, start, stop, *ctx.numbers = inputs
    ctx.save_for_backward(*output, q, k, v, bias, start, stop)


def _backward(ctx, grad, grad_lse):  # type: ignore[no-untyped-def]
    dq, dk, dv, dbias = tiled_gradients(grad, grad_lse, *ctx.saved_tensors, *ctx.numbers)
    return dq, dk, dv, dbias if ctx.needs_input_grad[3] else None, *(None,) * 6


tiled_op.register_autograd(_backward, setup_context=_remember)
