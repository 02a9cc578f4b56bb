"""The attention interface of transformers: the one place through which its models choose a kernel.

What a kernel gets here is closer to the model than what it passes on: keys and values are not yet repeated for the
query heads, one-token queries are not yet folded into their groups, and "eager" attention, which calls none of torch's
attention functions, can be captured at all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from headscope.attention.masks.mask import Intervals
from headscope.attention.masks.runs import Runs
from headscope.attention.paths.formula import normalise, scores
from headscope.calls import blocks
from headscope.calls.blocks import Block, Outer
from headscope.calls.call import Call, from_weights
from headscope.calls.mask_rows import Meaning, Reader, together
from headscope.calls.replaced import Replacement
from headscope.calls.sites.site import Arguments, Site
from headscope.compat.transformers import attention_interface, kernel_arguments

# Rows of weights that are compared with the model's own: the arguments of an eager function need not tell everything.
ROWS = 16


class Frame(Outer):
    """One call through the interface, while it runs."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        super().__init__()
        self.q, self.k, self.v = q, k, v

    def refine(self, call: Call, block: Block) -> Call:
        """A call that was captured below the interface, with the keys, values and queries as the interface got them."""
        q, k, v = self.q, self.k, self.v
        if q.ndim != 4 or k.ndim != 4 or v.ndim != 4:
            return call
        if call.q.shape != q.shape and q.shape[2] == 1 and call.q.numel() == q.numel():
            # Heads of one group were folded into the axis of the queries; a mask of theirs has a row for each of them.
            call = unfold(call, q)
        repeats = q.shape[1] // k.shape[1] if k.shape[1] else 1
        same = call.q.shape == q.shape and call.k.shape[2] <= k.shape[2] and call.k.shape[0] == k.shape[0]
        if repeats > 1 and same and call.k.shape[1] == q.shape[1]:
            call.k, call.v = k[:, :, : call.k.shape[2]], v[:, :, : call.v.shape[2]]
        return call


class AttentionInterface(Site):
    """Kernels of transformers; the output is edited here, whatever the kernel calls."""

    name = "an attention function of transformers"

    def replacements(self) -> Iterable[Replacement]:
        """What models ask for their kernel; nothing while transformers is not loaded."""
        kind = attention_interface()
        return () if kind is None else (Replacement(kind, "get_interface", self._wrapper),)

    def _wrapper(self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kernel = original(*args, **kwargs)
        return Kernel(self, kernel) if blocks.here() else kernel

    def arguments(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """By the names of the interface."""
        return kernel_arguments(func, args, kwargs)

    def read(self, reader: Reader, heads: int | None, arguments: Arguments) -> Call | None:
        """From the arguments and the weights that an eager kernel returned."""
        return eager(reader, arguments["module"], arguments, arguments["weights"])

    def values(self, output: Any, arguments: Arguments, heads: int | None) -> Tensor:
        """`(b, q, h, e)`, beside the weights or alone."""
        values: Tensor = output[0] if isinstance(output, tuple) else output
        return values.transpose(1, 2)

    def replace(self, output: Any, values: Tensor, arguments: Arguments) -> Any:
        """The weights stay."""
        new = values.transpose(1, 2).contiguous()
        return (new, *output[1:]) if isinstance(output, tuple) else new

    def around(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The kernel's own result; a function that is captured inside it counts, else the kernel itself."""
        first = dict(zip(("module", "query", "key", "value"), args, strict=False)) | kwargs
        frame = Frame(first["query"], first["key"], first["value"])
        with blocks.inside(frame):
            output = func(*args, **kwargs)
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        known = first | {"weights": weights}
        get_arguments = functools.cache(lambda: self.arguments(func, args, kwargs) | known)

        def read(reader: Reader, heads: int | None) -> Call | None:
            return self.read(reader, heads, get_arguments())

        blocks.capture(self.name, read, skip=frame.captured)
        return self.edit(output, get_arguments, read)


class Kernel:
    """A kernel of transformers, called as it is, and captured."""

    def __init__(self, site: AttentionInterface, kernel: Callable[..., Any]) -> None:
        self.site, self.kernel = site, kernel

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The kernel's own result, or the edited one."""
        return self.site.around(self.kernel, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernel, name)


def unfold(call: Call, q: Tensor) -> Call:
    """A one-token call whose heads were folded into its groups, with its heads side by side again."""
    h = q.shape[1]

    def side(x: Tensor) -> Tensor:
        return x.expand(-1, call.q.shape[1], -1, -1).reshape(x.shape[0], h, 1, -1) if x.shape[2] > 1 else x

    runs = None if call.runs is None else Runs(side(call.runs.start), side(call.runs.stop))
    bias = call.bias_of(range(call.q.shape[2]))
    return replace(call, q=q, runs=runs, bias=None if bias is None else side(bias), by_offset=None)


def eager(read: Reader, module: Any, arguments: Arguments, weights: Any) -> Call | None:
    """A call of a kernel that calls none of torch's attention functions, from its arguments and its result.

    A sink `s_i` of every query is a bias of `-s_i` on all of its scores beside a sink of 0: the same weights.
    """
    q, k, v = arguments["query"], arguments["key"], arguments["value"]
    scale = first(arguments.get("scaling"), getattr(module, "scaling", None), q.shape[-1] ** -0.5)
    sinks = first(arguments.get("s_aux"), arguments.get("sinks"), getattr(module, "sinks", None))
    softcap = arguments.get("softcap")
    meaning = Meaning()
    mask = arguments.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 4:
        meaning = read(mask[..., : k.shape[2]])
    position = arguments.get("position_bias")
    if isinstance(position, Tensor):
        meaning = together(meaning, read(position[..., : k.shape[2]]), q.shape[2], k.shape[2])
    sinks = sinks if isinstance(sinks, Tensor) else None
    if sinks is not None and sinks.ndim == 4:
        meaning = together(meaning, Meaning(None, -sinks.detach()), q.shape[2], k.shape[2])
        sinks = sinks.new_zeros(sinks.shape[1])
    runs, bias, by_offset = meaning
    call = Call(q, k, v, runs, bias, float(scale), softcap, sinks, by_offset=by_offset)
    if isinstance(weights, Tensor) and weights.ndim == 4 and not agrees(call, weights, arguments):
        return from_weights(weights, v)
    return call


def first(*values: Any) -> Any:
    """The first of several values that is one."""
    return next((x for x in values if x is not None), None)


def agrees(call: Call, weights: Tensor, arguments: dict[str, Any]) -> bool:
    """Whether a call explains the weights that the model computed: some rows of the outer items are compared."""
    q, k = call.q.float(), call.k.float()
    b, h, queries, keys = weights.shape
    if (b, h, queries) != tuple(q.shape[:3]) or keys != k.shape[2] or h % k.shape[1]:
        return False
    rows = torch.linspace(0, queries - 1, min(ROWS, queries), device=q.device).long()
    added = call.bias_of(rows.tolist())
    for item in {0, b - 1}:
        one = slice(item, item + 1)
        allowed = bias = None
        if call.runs is not None:
            part = type(call.runs)(*(x if len(x) == 1 else x[one] for x in call.runs))
            allowed = Intervals(part, keys).to_dense(queries, keys, q.device)[:, :, rows]
        if added is not None:
            bias = added if len(added) == 1 else added[one]
        s = scores(q[one][:, :, rows], k[one], scale=call.scale, softcap=call.softcap, bias=bias, allowed=allowed)
        mine, lse = normalise(s, call.sinks)
        theirs = weights[one][:, :, rows].float()
        dropout = arguments.get("dropout") or 0.0
        kept = (theirs != 0) if dropout else torch.ones_like(theirs, dtype=torch.bool)
        kept &= ~lse.isneginf()[..., None]
        if bool(((mine - theirs * (1 - dropout)).abs() * kept > 2e-3).any()):
            return False
    return True
