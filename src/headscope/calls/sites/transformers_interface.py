"""Listening at the attention interface of transformers: the one place through which its models choose a kernel.

What a kernel is given here is closer to the model than what it hands on: keys and values are not yet repeated for the
query heads, one-token queries are not yet folded into their groups, and "eager" attention, which calls none of torch's
attention functions, can be heard at all.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from headscope.attention.bias import DenseBias
from headscope.attention.masks.mask import Given
from headscope.attention.masks.runs import Runs
from headscope.attention.masks.tensors import Reader, runs_of
from headscope.attention.paths.formula import normalise, scores
from headscope.recording import patches
from headscope.recording.calls import Call, both

# Rows of weights that are compared with the model's own: the arguments of an eager function need not tell everything.
ROWS = 16


@dataclass
class Frame:
    """One call through the interface, while it runs."""

    q: Tensor
    k: Tensor
    v: Tensor
    heard: set[int] = field(default_factory=set)


class Local(threading.local):
    """The blocks and the interface calls that are open in one thread, innermost last."""

    def __init__(self) -> None:
        self.sessions: list[Any] = []
        self.frames: list[Frame] = []
        # Above 0 while a function runs that was heard as a whole: what it calls is not heard again.
        self.quiet = 0


local = Local()


def owner() -> type[Any] | None:
    """The class whose `get_interface` models call; None while transformers is not loaded."""
    module = sys.modules.get("transformers.modeling_utils")
    return getattr(module, "AttentionInterface", None)


def listen(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`get_interface`, whose answer is listened to when the thread has a block open."""
    kernel = original(*args, **kwargs)
    return Heard(kernel) if local.sessions else kernel


class Heard:
    """An attention kernel of transformers, called as it is, with a frame around the call."""

    def __init__(self, kernel: Callable[..., Any]) -> None:
        self.kernel = kernel

    def __call__(self, module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The kernel's own answer."""
        frame = Frame(query, key, value)
        local.frames.append(frame)
        try:
            output = self.kernel(module, query, key, value, *args, **kwargs)
        finally:
            local.frames.pop()
        for session in list(local.sessions):
            if id(session) not in frame.heard:
                given = dict(zip(("attention_mask", "scaling", "dropout"), args, strict=False)) | kwargs
                weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
                session.hear(lambda _, s=session, g=given, w=weights: eager(s.read, module, frame, g, w))
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernel, name)


def unrepeated(call: Call, session: Any) -> Call:
    """A call that was heard below the interface, with the keys, values and queries as they were given to it."""
    if not local.frames:
        return call
    frame = local.frames[-1]
    frame.heard.add(id(session))
    q, k, v = frame.q, frame.k, frame.v
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


def unfold(call: Call, q: Tensor) -> Call:
    """A one-token call whose heads were folded into its groups, with its heads side by side again."""
    h = q.shape[1]

    def side(x: Tensor) -> Tensor:
        return x.expand(-1, call.q.shape[1], -1, -1).reshape(x.shape[0], h, 1, -1) if x.shape[2] > 1 else x

    runs = None if call.runs is None else Runs(side(call.runs.start), side(call.runs.stop))
    bias = None if call.bias is None else side(call.bias)
    return replace(call, q=q, runs=runs, bias=bias)


def eager(read: Reader, module: Any, frame: Frame, given: dict[str, Any], weights: Any) -> Call:
    """A call of a kernel that calls none of torch's attention functions, from what it was given and what it "
    "returned."""
    q, k, v = frame.q, frame.k, frame.v
    scale = first(given.get("scaling"), getattr(module, "scaling", None), q.shape[-1] ** -0.5)
    sinks = first(given.get("s_aux"), given.get("sinks"), getattr(module, "sinks", None))
    softcap = given.get("softcap")
    runs = bias = None
    mask = given.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 4:
        runs, bias = read(mask[..., : k.shape[2]])
    position = given.get("position_bias")
    if isinstance(position, Tensor):
        found = read(position[..., : k.shape[2]])
        runs = both(runs, found.runs)
        bias = found.bias if bias is None or found.bias is None else bias + found.bias
    call = Call(q, k, v, runs, bias, float(scale), softcap, sinks if isinstance(sinks, Tensor) else None)
    if isinstance(weights, Tensor) and weights.ndim == 4 and not agrees(call, weights, given):
        return from_weights(weights, v)
    return call


def first(*given: Any) -> Any:
    """The first of several values that is one."""
    return next((x for x in given if x is not None), None)


def agrees(call: Call, weights: Tensor, given: dict[str, Any]) -> bool:
    """Whether a call explains the weights that the model computed; a few rows of the first and last item are "
    "compared."""
    q, k = call.q.float(), call.k.float()
    b, h, queries, keys = weights.shape
    if (b, h, queries) != tuple(q.shape[:3]) or keys != k.shape[2] or h % k.shape[1]:
        return False
    rows = torch.linspace(0, queries - 1, min(ROWS, queries), device=q.device).long()
    for item in {0, b - 1}:
        one = slice(item, item + 1)
        allowed = bias = None
        if call.runs is not None:
            part = type(call.runs)(*(x if len(x) == 1 else x[one] for x in call.runs))
            allowed = Given(part, keys).to_dense(queries, keys, q.device)[:, :, rows]
        if call.bias is not None:
            part_bias = call.bias if len(call.bias) == 1 else call.bias[one]
            bias = (
                DenseBias(part_bias).block(slice(None), 0, keys, queries, keys).expand(-1, -1, queries, -1)[:, :, rows]
            )
        s = scores(q[one][:, :, rows], k[one], scale=call.scale, softcap=call.softcap, bias=bias, allowed=allowed)
        mine, lse = normalise(s, call.sinks)
        theirs = weights[one][:, :, rows].float()
        dropout = given.get("dropout") or 0.0
        kept = (theirs != 0) if dropout else torch.ones_like(theirs, dtype=torch.bool)
        kept &= ~lse.isneginf()[..., None]
        if bool(((mine - theirs * (1 - dropout)).abs() * kept > 2e-3).any()):
            return False
    return True


def from_weights(weights: Tensor, v: Tensor) -> Call:
    """A call that is known by its weights alone: their logarithm is the bias of scores that are 0."""
    b, h, queries, keys = weights.shape
    q, k = weights.new_zeros(b, h, queries, 1), weights.new_zeros(b, v.shape[1], keys, 1)
    runs = runs_of(weights > 0)
    bias = weights.detach().float().log().masked_fill(weights <= 0, 0.0)
    return Call(q, k, v, runs, bias, 1.0, source="weights")


def install() -> None:
    """Begin to listen, once for each block."""
    kind = owner()
    if kind is not None:
        patches.install(kind, "get_interface", listen)


def remove() -> None:
    """Stop listening for one block."""
    kind = owner()
    if kind is not None and patches.installed(kind, "get_interface", listen):
        patches.remove(kind, "get_interface", listen)
