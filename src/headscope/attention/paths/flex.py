"""The flex path: torch's compiled FlexAttention, where it is the best one: structured masks and biases on a GPU."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from headscope.attention.bias import OffsetBias
from headscope.attention.known import known, leaves_python
from headscope.attention.masks.block_mask import block_mask
from headscope.attention.masks.mask import Mask
from headscope.attention.precision import only_math
from headscope.attention.request import Request
from headscope.attention.sinks import with_sinks
from headscope.compat.compiler import many_compilations

NAME = "flex"

# Where torch lets it run.
DEVICES = ("cuda", "cpu", "hpu", "mps", "xpu")
# Kinds of masks, biases and sizes that one process may compile FlexAttention for.
RECOMPILES = 256

_block_masks: WeakKeyDictionary[Mask, tuple[tuple[object, ...], Any]] = WeakKeyDictionary()


@cache
def compiled() -> Callable[..., Any]:
    """FlexAttention, compiled once; torch compiles it again for other kinds of scores."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def refusals(request: Request) -> list[str]:
    """Why FlexAttention cannot run this; empty when it can."""
    reasons = []
    on_cpu = request.device.kind == "cpu"
    if request.device.kind not in DEVICES:
        reasons.append(f"FlexAttention runs on {', '.join(DEVICES)}, and not on {request.device.kind}")
    if request.dropout:
        reasons.append("FlexAttention has no dropout")
    if request.q.dtype == torch.float64:
        reasons.append("FlexAttention has no float64")
    if 0 in (*request.q.shape, *request.v.shape):
        reasons.append("FlexAttention needs at least one query, one key and one feature")
    if request.bias is not None and not isinstance(request.bias, OffsetBias):
        reasons.append("a dense bias would be read number by number from memory: SDPA or tiles read it in blocks")
    if not known(request.q) and not torch.compiler.is_compiling():
        reasons.append("FlexAttention compiles itself, which neither transforms nor traced graphs let it do")
    if torch.compiler.is_compiling() and (torch.compiler.is_exporting() or leaves_python()):
        reasons.append("FlexAttention is compiled where it runs, and an exported graph does not compile")
    if only_math(request.q.device):
        reasons.append("torch's sdpa_kernel(...) allows no kernel but the unfused one")
    if on_cpu and request.trains:
        reasons.append("FlexAttention cannot train on CPU")
    if on_cpu and (request.needs_lse or request.sinks is not None):
        reasons.append("FlexAttention gives no lse on CPU")
    if on_cpu and not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        reasons.append("on CPU FlexAttention compiles itself with a C++ compiler, and none was found: install g++")
    if not on_cpu and importlib.util.find_spec("triton") is None:
        reasons.append("FlexAttention needs Triton, and it is not installed: pip install triton")
    return reasons


def run(request: Request) -> tuple[Tensor, Tensor | None]:
    """Values of a request, and its lse where the device gives one."""
    q, k, v = request.q, request.k, request.v
    wants_lse = request.needs_lse or request.sinks is not None
    options: dict[str, Any] = {"score_mod": score_mod(request), "block_mask": blocks(request), "scale": request.scale}
    options["enable_gqa"] = q.shape[1] != k.shape[1]
    if torch.compiler.is_compiling():
        # Within a graph that is being compiled it becomes a part of that.
        from torch.nn.attention.flex_attention import flex_attention

        if not wants_lse:
            return flex_attention(q, k, v, **options), None
        values, lse = flex_attention(q, k, v, return_lse=True, **options)
        return (values, lse) if request.sinks is None else with_sinks(values, lse, request.sinks)
    # Past its limit of recompilations torch would build the whole matrix, and say so only in a warning.
    with many_compilations(RECOMPILES):
        if not wants_lse:
            return compiled()(q, k, v, **options), None
        values, lse = compiled()(q, k, v, return_lse=True, **options)
    return (values, lse) if request.sinks is None else with_sinks(values, lse, request.sinks)


def blocks(request: Request) -> Any:
    """The block mask of a request; made once for each mask and size."""
    runs = request.runs()
    if request.mask is None or runs is None:
        return None
    if not known(request.q):
        return block_mask(runs, request.q.shape[2], request.k.shape[2])
    sizes = (*request.q.shape[:3], request.k.shape[2], request.q.device)
    cached = _block_masks.get(request.mask)
    if cached is None or cached[0] != sizes:
        cached = _block_masks[request.mask] = (sizes, block_mask(runs, request.q.shape[2], request.k.shape[2]))
    return cached[1]


def score_mod(request: Request) -> Callable[..., Tensor] | None:
    """What FlexAttention does to a score: softcap, then the bias of its distance."""
    softcap, line = request.softcap, None
    if isinstance(request.bias, OffsetBias):
        line = request.bias.line(request.q.shape[2], request.k.shape[2], request.q.device, torch.float32)
    if softcap is None and line is None:
        return None
    last = request.q.shape[2] - 1

    def mod(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        if softcap is not None:
            score = softcap * torch.tanh(score / softcap)
        return score if line is None else score + line[h, k - q + last]

    return mod
