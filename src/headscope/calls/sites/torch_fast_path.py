"""The fast path of `nn.TransformerEncoderLayer` and `nn.MultiheadAttention` in evaluation: one operator of torch's that
projects, attends and (for the layer) does everything else, too."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from headscope.attention.masks.runs import Runs
from headscope.calls import blocks
from headscope.calls.call import Call, both
from headscope.calls.mask_rows import Reader
from headscope.calls.sites.site import Arguments, Site
from headscope.compat.arguments import named_arguments
from headscope.compat.torch import encoder_fast_paths

# Which axes the mask of an operator has: `mask_type` 0 is `(q, k)`, 1 the padding `(b, k)`, 2 both `(b, h, q, k)`.
KEY_PADDING = 1


class FastPath(Site):
    """Captured by projecting its input once more; the result is the operator's own.

    A nested tensor holds a batch without its padding: it is captured as padded, and what is padding sees nothing.
    """

    name = "the fast path of torch's encoder layer"

    def functions(self) -> Iterable[Any]:
        """Both operators."""
        return [getattr(torch, name) for name in encoder_fast_paths()]

    def arguments(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """By the names of the operators."""
        return named_arguments(func, args, kwargs)

    def around(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The operator's own result. The one of a whole layer stands for the layer's attention, too."""
        part = "self_attn" if "encoder" in func.__name__ else None

        def read(reader: Reader, heads: int | None) -> Call:
            return self.read(reader, heads, self.arguments(func, args, kwargs))

        blocks.capture(self.name, read, part=part)
        return self.edit(func(*args, **kwargs), dict, read)

    def read(self, reader: Reader, heads: int | None, arguments: Arguments) -> Call:
        """q, k and v from the layer's own projection."""
        x, runs = arguments["src" if "src" in arguments else "query"], None
        if x.is_nested:
            lengths = torch.tensor([len(one) for one in x.unbind()], device=x.device, dtype=torch.int32)
            x = x.to_padded_tensor(0.0)
            runs = padded(lengths, x.shape[1])
        if arguments.get("norm_first"):
            x = layer_norm(x, x.shape[-1:], arguments["norm_weight_1"], arguments["norm_bias_1"], arguments["eps"])
        b, count, _ = x.shape
        projected = linear(x, arguments["qkv_weight"], arguments["qkv_bias"])
        q, k, v = projected.view(
            b, count, 3, arguments["num_heads" if "num_heads" in arguments else "num_head"], -1
        ).permute(2, 0, 3, 1, 4)
        mask = arguments.get("mask")
        if mask is not None:
            hidden = mask[:, None, None] if arguments.get("mask_type") == KEY_PADDING else mask
            runs = both(runs, reader(hidden.logical_not()).runs)
        return Call(q, k, v, runs, None, 1.0 / math.sqrt(max(q.shape[3], 1)), cross=False)

    def refusal(self, output: Any, arguments: Arguments) -> str | None:
        """Its heads are merged and projected inside; with a block that edits, torch's layers do not come here."""
        return "torch computes the whole layer in one operator"

    def values(self, output: Any, arguments: Arguments, heads: int | None) -> Tensor:
        """The result of the layer: it has no values of single heads."""
        whole: Tensor = output[0] if isinstance(output, tuple) else output
        return whole

    def replace(self, output: Any, values: Tensor, arguments: Arguments) -> Any:
        """The result stays."""
        return output


def padded(lengths: Tensor, count: int) -> Runs:
    """The first positions of each item see each other; the others see nothing."""
    real = torch.arange(count, device=lengths.device) < lengths[:, None]
    stop = torch.where(real, lengths[:, None], 0).int()[:, None, :, None]
    return Runs(torch.zeros_like(stop), stop)
