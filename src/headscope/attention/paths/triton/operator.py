"""The Triton path as one operator: torch.compile and torch.export see a single call and keep their graph whole.

Shapes, strides and dtypes of its results follow from those of its arguments, so that one graph serves every length; it
reads no number of a tensor and waits for none, so that a CUDA graph can hold it.
"""

from collections.abc import Sequence
from functools import cache, partial

import torch
from torch import Tensor

from headscope.attention.device import device_of
from headscope.attention.masks.runs import Runs
from headscope.attention.operator_vmap import by_samples
from headscope.attention.paths.triton.hulls import hulls
from headscope.attention.paths.triton.launch import Options


def options_of(
    q: Tensor,
    k: Tensor,
    start: Tensor,
    stop: Tensor,
    seed: Tensor | None,
    scale: float,
    softcap: float,
    dropout: float,
    bias_kind: int,
) -> Options:
    """What these arguments ask of the kernels; the hulls of the runs are made at each call, on the device, in O(N)."""
    runs = Runs(start.contiguous(), stop.contiguous())
    found = cache(partial(hulls, runs, q.shape[2], k.shape[2]))
    return Options(runs, found, scale, softcap or None, dropout, seed, bias_kind, device_of(q.device))


def rows(*tensors: Tensor) -> list[Tensor]:
    """Tensors whose rows lie as the kernels read them."""
    return [x if x.stride(3) == 1 else x.contiguous() for x in tensors]


def forward(
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
    bias_kind: int,
    trains: bool,
) -> tuple[Tensor, Tensor]:
    """Values and lse; a softcap of 0 is none. A few queries without a gradient are split over their keys."""
    from headscope.attention.paths.triton import launch, launch_split

    asked = options_of(q, k, start, stop, seed, scale, softcap, dropout, bias_kind)
    decodes = not trains and launch_split.few_queries(q, k, asked)
    q, k, v = rows(q, k, v)
    values, lse = (launch_split if decodes else launch).forward(q, k, v, bias, sinks, asked)
    return values, lse


triton_op = torch.library.custom_op("headscope::triton", forward, mutates_args=())


@triton_op.register_fake
def _(q, k, v, bias, sinks, start, stop, seed, scale, softcap, dropout, bias_kind, trains):  # type: ignore[no-untyped-def]
    b, h, queries, _ = q.shape
    values = q.new_empty(b, queries, h, v.shape[3]).transpose(1, 2)
    return values, q.new_empty(b, h, queries, dtype=torch.float32)


def gradients(
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
    bias_kind: int,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, of the numbers of the bias and of the sinks (empty where they are not wanted)."""
    from headscope.attention.paths.triton import launch_backward

    asked = options_of(q, k, start, stop, seed, scale, softcap, dropout, bias_kind)
    q, k, v, values = rows(q, k, v, values)
    found = launch_backward.backward(asked, (q, k, v, bias, sinks), values, lse.contiguous(), grad, grad_lse, wanted)
    dq, dk, dv, dbias, dsinks = (
        x if x is not None and needed else q.new_empty(0) for x, needed in zip(found, wanted, strict=True)
    )
    return dq, dk, dv, dbias, dsinks


triton_gradients = torch.library.custom_op("headscope::triton_gradients", gradients, mutates_args=())


@triton_gradients.register_fake
def _(  # type: ignore[no-untyped-def]
    grad, grad_lse, values, lse, q, k, v, bias, sinks, start, stop, seed, scale, softcap, dropout, bias_kind, wanted
):
    (laid_out,) = rows(q)
    made = torch.empty_like(laid_out), q.new_empty(k.shape), q.new_empty(v.shape)
    others = (None if x is None else torch.empty_like(x) for x in (bias, sinks))
    return tuple(
        x if x is not None and needed else q.new_empty(0) for x, needed in zip((*made, *others), wanted, strict=True)
    )


def _remember(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, scale, softcap, dropout, bias_kind, _ = inputs
    ctx.numbers = scale, softcap, dropout, bias_kind
    ctx.save_for_backward(*output, *tensors)


def _backward(ctx, grad, grad_lse):  # type: ignore[no-untyped-def]
    wanted = list(ctx.needs_input_grad[:5])
    found = triton_gradients(grad, grad_lse, *ctx.saved_tensors, *ctx.numbers, wanted)
    # No gradients for the runs (two), the seed, and the five arguments that are not tensors.
    return *(x if needed else None for x, needed in zip(found, wanted, strict=True)), *(None,) * 8


triton_op.register_autograd(_backward, setup_context=_remember)

_CALL = ("q", "k", "v", "bias", "sinks", "start", "stop", "seed", "scale", "softcap", "dropout", "bias_kind")
triton_op.register_vmap(by_samples(triton_op, (*_CALL, "trains")))
_OUTER = ("grad", "grad_lse", "values", "lse")
triton_gradients.register_vmap(by_samples(triton_gradients, (*_OUTER, *_CALL, "wanted")))
