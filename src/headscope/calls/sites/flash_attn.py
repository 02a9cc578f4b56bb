"""The functions of flash-attn, and torch's `varlen_attn`, which takes the same arguments.

Tensors are `(batch, positions, heads, size)` there, or `(positions, heads, size)` where the sequences of a batch stand
one behind the other; causal masks and windows are aligned to the end of the keys.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from headscope.attention.masks.runs import Runs
from headscope.attention.masks.window import runs_of_window
from headscope.calls import blocks, second_names
from headscope.calls.call import Call
from headscope.calls.mask_rows import Reader
from headscope.calls.replaced import Replacement
from headscope.calls.sites.site import Arguments, Site
from headscope.compat.arguments import VARLEN_NAMES, varlen_arguments

FUNCTIONS = (
    "flash_attn_func", "flash_attn_qkvpacked_func", "flash_attn_kvpacked_func", "flash_attn_varlen_func",
    "flash_attn_varlen_qkvpacked_func", "flash_attn_varlen_kvpacked_func", "flash_attn_with_kvcache",
)  # fmt: skip
# Where flash-attn 2, 3 and 4 define them.
HOMES = dict.fromkeys(
    ("flash_attn.flash_attn_interface", "flash_attn_interface", "flash_attn.cute.interface"), FUNCTIONS
)

# The names under which versions of these libraries know the same argument.
NAMES = {
    "q": "query", "k": "key", "v": "value", "softmax_scale": "scale", "cu_seqlens": "cu_seq_q",
    "cu_seqlens_q": "cu_seq_q", "cu_seqlens_k": "cu_seq_k", "page_table": "block_table",
}  # fmt: skip


class Packed(Site):
    """What the functions have in common: tensors with the heads behind the positions."""

    def read(self, reader: Reader, heads: int | None, arguments: Arguments) -> Call | None:
        """With the translation of the function that was called."""
        arguments = dict(arguments)
        return cache(arguments) if arguments.pop("function", "").endswith("kvcache") else flash(arguments)

    def values(self, output: Any, arguments: Arguments, heads: int | None) -> Tensor:
        """`(b, q, h, e)`, or `(positions, h, e)` as one item."""
        values: Tensor = output[0] if isinstance(output, tuple) else output
        return values.transpose(1, 2) if values.ndim == 4 else values.transpose(0, 1)[None]

    def replace(self, output: Any, values: Tensor, arguments: Arguments) -> Any:
        """The other results (lse, probabilities, the state of the random numbers) stay."""
        first = output[0] if isinstance(output, tuple) else output
        new = values.transpose(1, 2).reshape(first.shape)
        return (new, *output[1:]) if isinstance(output, tuple) else new


class FlashAttn(Packed):
    """The functions of the library flash-attn, under whatever name a module has for them."""

    name = "flash-attn"
    # One of them fills its cache itself.
    reads_afterwards = True

    def replacements(self) -> Iterable[Replacement]:
        """Every name of every function."""
        return second_names.replacements(HOMES, self._wrapper)

    def arguments(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """By the function's own names, and which function it is."""
        return dict(inspect.signature(func).bind(*args, **kwargs).arguments) | {"function": func.__name__}

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Nothing that it calls is captured."""
        with blocks.suppressed():
            return func(*args, **kwargs)

    def _wrapper(self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.around(original, args, kwargs) if blocks.here() else original(*args, **kwargs)


class Varlen(Packed):
    """`torch.nn.attention.varlen.varlen_attn`, as the operator that it becomes."""

    name = "varlen_attn"
    operators = VARLEN_NAMES

    def arguments(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """By the names of the operator."""
        return varlen_arguments(func, args, kwargs)

    def around(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Where the operator writes into a tensor of the model, the edited values are written there."""
        output = super().around(func, args, kwargs)
        if written(func) and blocks.editing():
            new = output[0] if isinstance(output, tuple) else output
            args[0].copy_(new)
        return output


def written(func: Any) -> bool:
    """Whether an operator writes into its first argument."""
    return bool(func.__name__.split(".")[0].endswith("out"))


def flash(arguments: dict[str, Any]) -> Call:
    """A call of a function of flash-attn, packed or not, or of `torch.nn.attention.varlen.varlen_attn`."""
    arguments = {NAMES.get(name, name): x for name, x in arguments.items() if x is not None}
    if "qkv" in arguments:
        arguments |= dict(zip(("query", "key", "value"), arguments["qkv"].unbind(-3), strict=True))
    if "kv" in arguments:
        arguments |= dict(zip(("key", "value"), arguments["kv"].unbind(-3), strict=True))
    q, k, v = arguments["query"], arguments["key"], arguments["value"]
    sides = window(arguments)
    if "cu_seq_q" not in arguments:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        lengths = torch.tensor([k.shape[2]], device=q.device)
        return finished(q, k, v, aligned(q.shape[2], lengths, k.shape[2], sides), sides, arguments)
    cu_q = arguments["cu_seq_q"].long()
    used = arguments.get("seqused_k")
    if "block_table" in arguments:
        assert used is not None
        pages, longest = arguments["block_table"].long(), int(used.max())
        k, v = (x[pages].flatten(1, 2)[:, :longest].flatten(0, 1) for x in (k, v))
        cu_k = torch.arange(len(pages) + 1, device=q.device) * longest
    else:
        cu_k = arguments.get("cu_seq_k", cu_q).long()
    runs = packed(cu_q, cu_k, cu_k.diff() if used is None else used.long(), sides, len(q))
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return finished(q, k, v, runs, sides, arguments)


def cache(arguments: dict[str, Any]) -> Call:
    """A call of `flash_attn_with_kvcache` that has returned: the new keys are in the cache already."""
    arguments = {NAMES.get(name, name): x for name, x in arguments.items() if x is not None}
    q, k, v = arguments["query"], arguments["k_cache"], arguments["v_cache"]
    b, count = len(q), q.shape[1]
    before = arguments.get("cache_seqlens", k.shape[1] if "block_table" not in arguments else 0)
    before = torch.as_tensor(before, device=q.device).long().expand(b)
    lengths = before + (arguments["key"].shape[1] if "key" in arguments else 0)
    if "block_table" in arguments:
        k, v = (x[arguments["block_table"].long()].flatten(1, 2) for x in (k, v))
    else:
        items = arguments["cache_batch_idx"].long() if "cache_batch_idx" in arguments else slice(0, b)
        k, v = k[items], v[items]
    longest = max(int(lengths.max()), 1)
    k, v = k[:, :longest], v[:, :longest]
    sides = window(arguments)
    if "rotary_cos" in arguments:
        step = torch.arange(count, device=q.device) if sides != (None, None) else torch.zeros_like(q[0, :, 0, 0]).long()
        q = rotated(q, arguments["rotary_cos"], arguments["rotary_sin"], before[:, None] + step, arguments)
    start, stop = aligned(count, lengths, longest, sides)
    if "cache_leftpad" in arguments:
        start = torch.maximum(start, arguments["cache_leftpad"].int()[:, None, None, None])
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return finished(q, k, v, Runs(start, torch.maximum(start, stop)), sides, arguments)


def rotated(q: Tensor, cos: Tensor, sin: Tensor, at: Tensor, arguments: dict[str, Any]) -> Tensor:
    """Queries turned by their positions, as the function does it before it attends."""
    size = 2 * cos.shape[-1]
    c, s = (x[at][:, :, None].to(q.dtype) for x in (cos, sin))
    turned, rest = q[..., :size], q[..., size:]
    if arguments.get("rotary_interleaved", True):
        a, b = turned[..., 0::2], turned[..., 1::2]
        new = torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2)
    else:
        a, b = turned.chunk(2, -1)
        new = torch.cat([a * c - b * s, b * c + a * s], -1)
    return torch.cat([new, rest], -1)


def window(arguments: dict[str, Any]) -> tuple[int | None, int | None]:
    """How many keys before and after its own a query sees; None for all."""
    left, right = arguments.get("window_size") or (-1, -1)
    if arguments.get("causal") or arguments.get("is_causal"):
        right = 0
    return (None if left < 0 else left), (None if right < 0 else right)


def aligned(queries: int, lengths: Tensor, keys: int, sides: tuple[int | None, int | None]) -> Runs:
    """The runs of a window that is aligned to the end of each item's keys."""
    lengths = lengths.int()[:, None, None, None]
    own = torch.arange(queries, device=lengths.device, dtype=torch.int32)[None, None, :, None] + lengths - queries
    return runs_of_window(own, lengths, *sides)


def packed(cu_q: Tensor, cu_k: Tensor, lengths: Tensor, sides: tuple[int | None, int | None], total: int) -> Runs:
    """The same for sequences that stand one behind the other."""
    position = torch.arange(total, device=cu_q.device)
    text = (torch.searchsorted(cu_q, position, right=True) - 1).clamp(max=len(lengths) - 1)
    keys, queries = lengths[text], cu_q.diff()[text]
    own = position - cu_q[text] + keys - queries
    runs = runs_of_window(own.int(), keys.int(), *sides)
    # What stands behind the last sequence belongs to none.
    inside = (position < cu_q[-1]).int()
    return Runs(*((side * inside + cu_k[text].int() * inside)[None, None, :, None].int() for side in runs))


def finished(
    q: Tensor, k: Tensor, v: Tensor, runs: Runs, sides: tuple[int | None, int | None], arguments: dict[str, Any]
) -> Call:
    """The call with its scale, softcap, sinks and slopes."""
    bias = None
    slopes = arguments.get("alibi_slopes")
    if slopes is not None:
        slopes = slopes.reshape(-1, slopes.shape[-1], 1, 1).float()
        j = torch.arange(k.shape[2], device=q.device)
        # Where no key comes after the query, its distance is its position, but for a constant that the softmax drops.
        if sides[1] == 0:
            bias = slopes * j
        else:
            own = own_keys(q.shape[2], k.shape[2], arguments)
            bias = -slopes * (own[:, None] - j).abs()
    scale = float(arguments.get("scale", q.shape[-1] ** -0.5))
    everything = bool((runs.start == 0).all()) and bool((runs.stop == k.shape[2]).all())
    sinks = arguments.get("learnable_sink")
    return Call(q, k, v, None if everything else runs, bias, scale, arguments.get("softcap") or None, sinks)


def own_keys(queries: int, keys: int, arguments: dict[str, Any]) -> Tensor:
    """The position, among all keys, that each query's own key has."""
    device = arguments["query"].device
    i = torch.arange(queries, device=device)
    if "cu_seq_q" not in arguments:
        return i + keys - queries
    cu_q = arguments["cu_seq_q"].long()
    cu_k = arguments.get("cu_seq_k", cu_q).long()
    text = (torch.searchsorted(cu_q, i, right=True) - 1).clamp(max=len(cu_q) - 2)
    own: Tensor = i - cu_q[text] + cu_k[text + 1] - cu_q.diff()[text]
    return own
