"""`F.multi_head_attention_forward`: what `nn.MultiheadAttention` calls where it does not take its fast path."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import pad

from headscope.calls import blocks
from headscope.calls.call import Call
from headscope.calls.mask_rows import Meaning, Reader, together
from headscope.calls.replaced import Replacement
from headscope.calls.sites.site import Arguments, Site
from headscope.compat.arguments import named_arguments
from headscope.compat.torch import mha_projections


@dataclass
class Running:
    """One call while it runs: torch projects q, k and v inside, and merges the heads there."""

    arguments: Arguments
    projected: tuple[Tensor, Tensor, Tensor] | None = None
    captured: bool = False


class Local(threading.local):
    """The innermost call of one thread."""

    call: Running | None = None


_local = Local()


class MultiHeadAttentionForward(Site):
    """Captured by its projections; edited where its merged heads go into the output projection."""

    name = "multi_head_attention_forward"

    def functions(self) -> Iterable[Any]:
        """The one function."""
        return (F.multi_head_attention_forward,)

    def replacements(self) -> Iterable[Replacement]:
        """What it calls: the projections before and after the attention."""
        projections = [Replacement(F, name, self._project) for name in mha_projections()]
        return [*projections, Replacement(F, "linear", self._merge)]

    def arguments(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """By torch's names."""
        return named_arguments(func, args, kwargs)

    def around(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The function's own result; its heads are edited inside, see `_merge`."""
        before, _local.call = _local.call, Running(self.arguments(func, args, kwargs))
        try:
            output = func(*args, **kwargs)
            call = _local.call
        finally:
            _local.call = before
        assert call is not None
        self._capture(call)
        return output

    def read(self, reader: Reader, heads: int | None, arguments: Arguments) -> Call | None:
        """Read from the projections: see `_read`."""
        return None if _local.call is None else self._read(reader, _local.call)

    def values(self, output: Any, arguments: Arguments, heads: int | None) -> Tensor:
        """The merged heads `(positions · batch, m)` as values."""
        count = arguments["num_heads"]
        batch = 1 if arguments["query"].ndim == 2 else arguments["query"].shape[1]
        merged: Tensor = output.reshape(-1, batch, count, output.shape[-1] // count)
        return merged.permute(1, 2, 0, 3)

    def replace(self, output: Any, values: Tensor, arguments: Arguments) -> Any:
        """Merged again."""
        return values.permute(2, 0, 1, 3).reshape(output.shape)

    def _capture(self, call: Running) -> None:
        """Once for each call: before its heads are edited, or when it ends."""
        if not call.captured:
            call.captured = True
            blocks.capture(self.name, lambda reader, heads: self._read(reader, call))

    @staticmethod
    def _project(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        projected = original(*args, **kwargs)
        if _local.call is not None:
            _local.call.projected = tuple(projected)
        return projected

    def _merge(self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`F.linear`: where it projects the merged heads of the running call, these are edited first."""
        call = _local.call
        if call is not None and call.projected is not None and blocks.here():
            weight = args[1] if len(args) > 1 else kwargs.get("weight")
            if weight is call.arguments["out_proj_weight"]:
                self._capture(call)
            if weight is call.arguments["out_proj_weight"] and blocks.editing():
                values = self.values(args[0], call.arguments, None)
                edited = blocks.edited(values, lambda reader, heads: self._read(reader, call))
                args = (self.replace(args[0], edited, call.arguments), *args[1:])
        return original(*args, **kwargs)

    @staticmethod
    def _read(reader: Reader, call: Running) -> Call | None:
        """The call, from its projections and its arguments.

        Its masks say who may *not* attend, its learned and its zero key are appended to the others, and its tensors
        are `(positions, batch, size)`.
        """
        arguments = call.arguments
        if call.projected is None:
            return None
        q, k, v = (x if x.ndim == 3 else x[:, None] for x in call.projected)
        count, batch, heads = q.shape[0], q.shape[1], arguments["num_heads"]
        if arguments.get("bias_k") is not None:
            k = torch.cat([k, arguments["bias_k"].repeat(1, batch, 1)])
            v = torch.cat([v, arguments["bias_v"].repeat(1, batch, 1)])
        size = q.shape[2] // heads
        q, k, v = (x.reshape(len(x), batch, heads, size).permute(1, 2, 0, 3) for x in (q, k, v))
        static_k, static_v = arguments.get("static_k"), arguments.get("static_v")
        if static_k is not None:
            k = static_k.reshape(batch, heads, *static_k.shape[1:])
        if static_v is not None:
            v = static_v.reshape(batch, heads, *static_v.shape[1:])
        if arguments.get("add_zero_attn"):
            k, v = pad(k, (0, 0, 0, 1)), pad(v, (0, 0, 0, 1))
        meaning = Meaning()
        for mask, sizes in (
            (arguments.get("attn_mask"), (-1, 1, count)),
            (arguments.get("key_padding_mask"), (batch, 1, 1)),
        ):
            if mask is None:
                continue
            if mask.ndim == 3 and mask.shape[0] > 1:
                sizes = (batch, heads, count)
            one = reader(allowed(mask.reshape(*sizes, mask.shape[-1]), k.shape[2]))
            meaning = together(meaning, one, count, k.shape[2])
        cross = arguments["query"] is not arguments["key"]
        scale = 1.0 / math.sqrt(max(size, 1))
        return Call(q, k, v, meaning.runs, meaning.bias, scale, cross=cross, by_offset=meaning.by_offset)


def allowed(hidden: Tensor, keys: int) -> Tensor:
    """Torch's mask, whose True means "may not attend", as one of who may; keys appended to the others may be seen."""
    appended = keys - hidden.shape[-1]
    if hidden.dtype == torch.bool:
        return pad(~hidden, (0, appended), value=True)
    return pad(hidden, (0, appended)) if appended else hidden
