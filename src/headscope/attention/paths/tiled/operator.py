"""The tiled path as one operator: torch.compile and torch.export see a single call and keep their graph whole."""

import torch
from torch import Tensor

from headscope.attention.masks.runs import trim
from headscope.attention.operator_vmap import by_samples
from headscope.attention.paths.tiled.loop import Settings, run_tiles, tile_gradients, tile_shapes
from headscope.attention.paths.tiled.schedule import schedule
from headscope.attention.sinks import sinks_gradient
from headscope.shapes import acc_dtype


def settings(
    q: Tensor,
    k: Tensor,
    start: Tensor,
    stop: Tensor,
    seed: Tensor | None,
    scale: float,
    softcap: float,
    dropout: float,
    biased: bool,
) -> Settings:
    """The tiles of these runs, and what else the call asks of them."""
    b, h, queries, _ = q.shape
    shapes = tile_shapes(q.device, bias=biased, softcap=bool(softcap), dropout=bool(dropout))
    # Made where numbers were not known: as many columns as there might be runs.
    runs = trim(start, stop)
    tiles = schedule(runs, b, h, h // k.shape[1], queries, **shapes._asdict())
    return Settings(tiles, runs, scale, softcap or None, dropout, 0 if seed is None else int(seed))


@torch.library.custom_op("headscope::tiled", mutates_args=())
def tiled_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    sinks: Tensor | None,
    start: Tensor,
    stop: Tensor,
    seed: Tensor | None,
    scale: float,
    softcap: float,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Values and lse; a softcap of 0 is none."""
    asked = settings(q, k, start, stop, seed, scale, softcap, dropout, bias is not None)
    added = asked.tile_bias(bias, q, k)
    return run_tiles(asked.forward_kernel(q, k, v, added), asked.tiles, sinks)


@tiled_op.register_fake
def _(q, k, v, bias, sinks, start, stop, seed, scale, softcap, dropout):  # type: ignore[no-untyped-def]
    b, h, queries, _ = q.shape
    values = q.new_empty(b, queries, h, v.shape[3]).transpose(1, 2)
    return values, q.new_empty(b, h, queries, dtype=acc_dtype(q.dtype))


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
    seed: Tensor | None,
    scale: float,
    softcap: float,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, of the bias and of the sinks (empty where there are none)."""
    asked = settings(q, k, start, stop, seed, scale, softcap, dropout, bias is not None)
    added = asked.tile_bias(bias, q, k)
    kernel = asked.backward_kernel(q, k, v, added, bias_trains=bias is not None)
    dq, dk, dv = tile_gradients(kernel, asked.tiles, grad, values, lse, grad_lse)
    dbias = q.new_empty(0) if added is None or bias is None else added.grad.to(bias.dtype)
    dsinks = q.new_empty(0) if sinks is None else sinks_gradient(grad, values, lse, grad_lse, sinks)
    return dq, dk, dv, dbias, dsinks


@tiled_gradients.register_fake
def _(grad, grad_lse, values, lse, q, k, v, bias, sinks, start, stop, seed, scale, softcap, dropout):  # type: ignore[no-untyped-def]
    dbias = q.new_empty(0) if bias is None else torch.empty_like(bias)
    dsinks = q.new_empty(0) if sinks is None else torch.empty_like(sinks)
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), dbias, dsinks


def _remember(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, scale, softcap, dropout = inputs
    ctx.numbers = scale, softcap, dropout
    ctx.save_for_backward(*output, *tensors)


def _backward(ctx, grad, grad_lse):  # type: ignore[no-untyped-def]
    *grads, dbias, dsinks = tiled_gradients(grad, grad_lse, *ctx.saved_tensors, *ctx.numbers)
    wanted = ctx.needs_input_grad[3:5]
    # No gradients for the runs (two), the seed, and the three numbers.
    return *grads, dbias if wanted[0] else None, dsinks if wanted[1] else None, *(None,) * 6


tiled_op.register_autograd(_backward, setup_context=_remember)


_CALL = ("q", "k", "v", "bias", "sinks", "start", "stop", "seed", "scale", "softcap", "dropout")
tiled_op.register_vmap(by_samples(tiled_op, _CALL))
_OUTER = ("grad", "grad_lse", "values", "lse")
tiled_gradients.register_vmap(by_samples(tiled_gradients, (*_OUTER, *_CALL)))


class TransformedTiles(torch.autograd.Function):
    """The operator as `torch.func` differentiates it: operators with a gradient of their own are closed to it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs):  # type: ignore[no-untyped-def]
        """Values and lse."""
        return tiled_op(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        """What the backward needs."""
        _remember(ctx, inputs, output)  # type: ignore[no-untyped-call]

    @staticmethod
    def backward(ctx, grad, grad_lse):  # type: ignore[no-untyped-def]
        """Gradients of q, k, v, of the bias and of the sinks."""
        # torch.func records every backward; of this one nobody asks a derivative: such calls run on the formula.
        with torch.no_grad():
            return _backward(ctx, grad, grad_lse)  # type: ignore[no-untyped-call]
