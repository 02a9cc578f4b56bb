"""Masks, biases and comparisons that the tests of attention share."""

from collections.abc import Callable

import torch
from torch import Tensor

import headscope as hs
from headscope.attention.bias import Bias
from headscope.attention.masks.mask import Mask


def qkv(b=2, h=6, g=3, q=11, k=17, d=5, e=7, dtype=torch.float64, seed=0) -> tuple[Tensor, Tensor, Tensor]:
    """Random q, k and v with prime, pairwise different sizes, that want gradients."""
    made = torch.Generator().manual_seed(seed)
    sizes = (b, h, q, d), (b, g, k, d), (b, g, k, e)
    return tuple(torch.randn(s, generator=made, dtype=torch.float64).to(dtype).requires_grad_() for s in sizes)


def masks(q: int, k: int, b: int, h: int) -> dict[str, Mask | None]:
    """One mask of every kind, and combinations, with rows that see nothing among them."""
    made = torch.Generator().manual_seed(1)
    part = k // 3
    documents = hs.documents([q - q // 2, q // 2], [part, k - part])
    return {
        "none": None,
        "causal": hs.causal(),
        "window": hs.window(2, 1),
        "left window": hs.window(3),
        "padding": hs.padding([k, 0][:b] + [part] * (b - 2)),
        "padded both": hs.padding([part] * b, [q // 2] * b),
        "documents": documents,
        "documents per item": hs.documents([[q - 1, 1]] * (b - 1) + [[0, q]], [[part, k - part]] * b),
        "packed causal": hs.causal() & documents,
        "prefix": hs.prefix([part] * b),
        "sinks and window": (hs.first(2) | hs.window(2)) & hs.causal(),
        "either": hs.window(1, 1) | hs.padding([part] * b),
        "dense": hs.dense(torch.rand(q, k, generator=made) > 0.6),
        "dense per head": hs.dense(torch.rand(b, h, q, k, generator=made) > 0.8),
        "dense keys": hs.dense(torch.rand(b, 1, 1, k, generator=made) > 0.5),
        "nothing": hs.padding([0] * b),
    }


def extras(h: int, q: int, k: int, dtype: torch.dtype = torch.float64) -> dict[str, dict[str, object]]:
    """Everything besides a mask that changes scores or weights; trainable where it can be."""
    made = torch.Generator().manual_seed(2)

    def rand(*size: int) -> Tensor:
        return torch.randn(size, generator=made, dtype=torch.float64).to(dtype).requires_grad_()

    return {
        "plain": {},
        "scale": {"scale": 0.37},
        "softcap": {"softcap": 1.3},
        "sinks": {"sinks": rand(h)},
        "alibi": {"bias": hs.alibi(h)},
        "relative": {"bias": hs.relative(rand(8, h), max_distance=9)},
        "decoder's relative": {"bias": hs.relative(rand(8, h), bidirectional=False, max_distance=13)},
        "dense bias": {"bias": hs.dense_bias(rand(1, h, q, k))},
        "shared bias": {"bias": hs.dense_bias(rand(1, 1, 1, k))},
        "all": {"bias": hs.dense_bias(rand(q, k)), "softcap": 2.0, "sinks": rand(h), "scale": 0.5},
    }


def learned(options: dict[str, object]) -> list[Tensor]:
    """The tensors among the options that want a gradient."""
    bias, sinks = options.get("bias"), options.get("sinks")
    found = list(bias.parameters) if isinstance(bias, Bias) else []
    return [t for t in [*found, *([sinks] if isinstance(sinks, Tensor) else [])] if t.requires_grad]


def everything(run: Callable[[], tuple[Tensor, Tensor]], wanted: list[Tensor]) -> list[Tensor]:
    """Values, lse, and the gradients of a sum that weighs every one of them differently."""
    values, lse = run()
    seen = torch.where(lse.isneginf(), 0.0, lse)
    pull = torch.linspace(-1.0, 2.0, values[0].numel(), dtype=torch.float64).view_as(values[0]).to(values.dtype)
    draw = torch.linspace(2.0, -1.0, seen[0].numel(), dtype=torch.float64).view_as(seen[0]).to(seen.dtype)
    loss = (values * pull).sum() + (seen * draw).sum()
    grads = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [values, lse, *(torch.zeros_like(t) if g is None else g for g, t in zip(grads, wanted, strict=True))]
