"""`F.scaled_dot_product_attention`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from headscope.attention.masks.tensors import causal_from_the_start
from headscope.calls.call import Call, both, four_axes, mask_axes
from headscope.calls.mask_rows import Meaning, Reader
from headscope.calls.sites.site import Arguments, Site

NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


class ScaledDotProductAttention(Site):
    """Torch's fused attention; its q, k and v may have any number of axes, and not all the same."""

    name = "scaled_dot_product_attention"

    def functions(self) -> Iterable[Any]:
        """The one function."""
        return (F.scaled_dot_product_attention,)

    def arguments(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """By torch's names."""
        return dict(zip(NAMES, args, strict=False)) | kwargs

    def read(self, reader: Reader, heads: int | None, arguments: Arguments) -> Call:
        """Torch's `is_causal` is aligned to the start, and its `attn_mask` says who may attend."""
        query, key, value = arguments["query"], arguments["key"], arguments["value"]
        leading, rank = axes(query, key, value)
        q, k, v = (four_axes(x, leading, heads, rank) for x in (query, key, value))
        runs = causal_from_the_start(q.shape[2], k.shape[2], q.device) if arguments.get("is_causal") else None
        meaning, mask = Meaning(), arguments.get("attn_mask")
        if mask is not None:
            if mask.shape[-1] != k.shape[2]:
                mask = mask.expand(*mask.shape[:-1], k.shape[2])
            meaning = reader(mask if rank == 4 else mask_axes(mask, rank, leading, heads))
        scale = arguments.get("scale")
        scale = scale if scale is not None else 1.0 / math.sqrt(max(q.shape[3], 1))
        runs = both(runs, meaning.runs)
        return Call(q, k, v, runs, meaning.bias, float(scale), by_offset=meaning.by_offset)

    def values(self, output: Any, arguments: Arguments, heads: int | None) -> Tensor:
        """The output, with four axes."""
        return four_axes(output, output.shape[:-3], heads)

    def replace(self, output: Any, values: Tensor, arguments: Arguments) -> Any:
        """With the axes of the output."""
        return values.reshape(output.shape)


def axes(*tensors: Tensor) -> tuple[torch.Size, int]:
    """The axes before the heads that tensors of different ranks have together, and the rank that counts."""
    rank = max(x.ndim for x in tensors)
    wide = [x for x in tensors if x.ndim > 3] if rank > 3 else []
    return torch.broadcast_shapes(*(x.shape[:-3] for x in wide)), rank  # type: ignore[no-untyped-call]
