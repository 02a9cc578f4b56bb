"""`xformers.ops.memory_efficient_attention`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from headscope.attention.masks.tensors import causal_from_the_start
from headscope.calls import blocks, second_names
from headscope.calls.call import Call
from headscope.calls.mask_rows import Reader
from headscope.calls.replaced import Replacement
from headscope.calls.sites.flash_attn import aligned
from headscope.calls.sites.site import Arguments, Site

HOMES = {"xformers.ops.fmha": ("memory_efficient_attention",)}


class MemoryEfficientAttention(Site):
    """The function of the library xformers, under whatever name a module has for it."""

    name = "xformers"
    reads_afterwards = True

    def replacements(self) -> Iterable[Replacement]:
        """Every name of the function."""
        return second_names.replacements(HOMES, self._wrapper)

    def arguments(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """By the function's own names."""
        return dict(inspect.signature(func).bind(*args, **kwargs).arguments)

    def read(self, reader: Reader, heads: int | None, arguments: Arguments) -> Call:
        """See `read_call`."""
        return read_call(reader, arguments)

    def values(self, output: Any, arguments: Arguments, heads: int | None) -> Tensor:
        """`(b, q, e)`, `(b, q, h, e)` or `(b, q, g, h / g, e)`."""
        values: Tensor = output[:, :, None] if output.ndim == 3 else output
        return values.flatten(2, -2).transpose(1, 2)

    def replace(self, output: Any, values: Tensor, arguments: Arguments) -> Any:
        """With the axes of the output."""
        return values.transpose(1, 2).reshape(output.shape)

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Nothing that it calls is captured."""
        with blocks.suppressed():
            return func(*args, **kwargs)

    def _wrapper(self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.around(original, args, kwargs) if blocks.here() else original(*args, **kwargs)


def read_call(reader: Reader, arguments: Arguments) -> Call:
    """A call of `xformers.ops.memory_efficient_attention`; tensors of five axes have their heads in groups."""
    q, k, v = arguments["query"], arguments["key"], arguments["value"]
    if q.ndim == 3:
        q, k, v = (x[:, :, None] for x in (q, k, v))
    if q.ndim == 5:  # keys and values are expanded within each group
        k, v = (x[:, :, :, 0] if x.stride(3) == 0 or x.shape[3] == 1 else x.flatten(2, 3) for x in (k, v))
        q = q.flatten(2, 3)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scale = arguments.get("scale")
    call = Call(q, k, v, None, None, float(scale) if scale is not None else q.shape[-1] ** -0.5)
    bias = arguments.get("attn_bias")
    if bias is None:
        return call
    kind = type(bias).__name__
    queries, keys = q.shape[2], k.shape[2]
    if kind == "LowerTriangularMask":
        call.runs = causal_from_the_start(queries, keys, q.device)
    elif kind == "LowerTriangularFromBottomRightMask":
        call.runs = aligned(queries, torch.tensor([keys], device=q.device), keys, (None, 0))
    else:
        tensor = bias if isinstance(bias, Tensor) else bias.materialize((1, 1, queries, keys), torch.float32, q.device)
        if tensor.ndim == 3:
            tensor = (
                tensor[:, None] if len(tensor) != q.shape[0] * q.shape[1] else tensor.view(*q.shape[:2], queries, -1)
            )
        if tensor.ndim == 5:
            tensor = tensor.flatten(1, 2)
        call.runs, call.bias, call.by_offset = reader(tensor)
    return call
