"""`hs.attend`, `hs.attend_lse`, and attention that gives its weights too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from headscope.attention.api import attend, attend_lse
from headscope.attention.bias import DenseBias, OffsetBias
from headscope.attention.with_weights import attend_weights
from headscope.calls.call import Call
from headscope.calls.mask_rows import Reader
from headscope.calls.sites.site import Arguments, Site


class Attend(Site):
    """This library's own attention: the call is made of its arguments."""

    name = "hs.attend"

    def functions(self) -> Iterable[Any]:
        """The functions that take q, k and v."""
        return (attend, attend_lse, attend_weights)

    def arguments(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """q, k and v by position, all else by name."""
        return dict(zip(("q", "k", "v"), args, strict=False)) | kwargs

    def read(self, reader: Reader, heads: int | None, arguments: Arguments) -> Call:
        """A mask is runs already; a bias by distance stays one value for each offset."""
        q, k, v, mask, bias = (
            arguments["q"],
            arguments["k"],
            arguments["v"],
            arguments.get("mask"),
            arguments.get("bias"),
        )
        queries, keys = q.shape[2], k.shape[2]
        runs = None if mask is None else mask.runs(queries, keys, q.device)
        added = by_offset = None
        if isinstance(bias, OffsetBias):
            by_offset = bias.line(queries, keys, q.device).detach()
        elif isinstance(bias, DenseBias):
            _, added, by_offset = reader.bias(bias.values, runs)
        elif bias is not None:
            added = bias.block(slice(0, queries), 0, keys, queries, keys).detach().clone()
        scale, softcap = arguments.get("scale"), arguments.get("softcap")
        # Either may have been a tensor of one number.
        scale = float(scale) if scale is not None else max(q.shape[3], 1) ** -0.5
        softcap = None if softcap is None else float(softcap)
        return Call(q, k, v, runs, added, scale, softcap, arguments.get("sinks"), by_offset=by_offset)

    def values(self, output: Any, arguments: Arguments, heads: int | None) -> Tensor:
        """The values: alone, or before the lse or the weights."""
        values: Tensor = output[0] if isinstance(output, tuple) else output
        return values

    def replace(self, output: Any, values: Tensor, arguments: Arguments) -> Any:
        """The lse and the weights stay."""
        return (values, *output[1:]) if isinstance(output, tuple) else values
