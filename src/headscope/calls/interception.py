"""Listening to the functions of torch, and to `hs.attend`: each is seen once, and handed on as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch._ops import OperatorBase, OpOverloadPacket
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from headscope.attention.api import attend, attend_lse
from headscope.attention.masks.tensors import Reader
from headscope.recording import calls, flex, foreign, from_scores, interface, kernels, patches, softmax, stance

PROJECTIONS = ("_in_projection_packed", "_in_projection")
# The operator of `torch.nn.attention.varlen`, and its arguments.
VARLEN = ("_varlen_attn", "_varlen_attn_out")
VARLEN_NAMES = (
    "query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k", "is_causal", "scale", "window_size",
    "enable_gqa", "seqused_k", "block_table",
)  # fmt: skip
# What operators are, however they are called; a tuple, since every function that the model calls is asked about.
OPERATORS = (OperatorBase, OpOverloadPacket)
HEAD_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead")


class Local(threading.local):
    """What one thread has going on."""

    projected: list[tuple[Tensor, Tensor, Tensor]] | None = None


_local = Local()


@runtime_checkable
class Hearing(Protocol):
    """A block, as far as a listener needs to know it."""

    read: Reader

    def hear(self, make: Callable[[int | None], calls.Call | None]) -> None:
        """Keep an attention call."""


class Listening(TorchFunctionMode):
    """Sees every function of torch that the thread of a block calls, and hands each on as it is."""

    def __init__(self, session: Hearing) -> None:
        super().__init__()
        self.session = session
        self.follower = softmax.Follower()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        hear, read = self.session.hear, self.session.read
        if func is F.scaled_dot_product_attention:
            hear(lambda heads: calls.sdpa(read, heads, *args, **kwargs))
        elif func is attend or func is attend_lse:
            hear(lambda _: calls.attend(*args, **kwargs))
        elif func is F.multi_head_attention_forward:
            return self._mha(func, args, kwargs)
        elif isinstance(func, OPERATORS):
            return self._operator(func, args, kwargs)
        elif not interface.local.frames:
            return self._follow(func, args, kwargs)
        return func(*args, **kwargs)

    def _follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Any other function may be a step of attention that is written out by hand."""
        if self.follower.known:
            self.follower.before(func, args, kwargs)
        output = func(*args, **kwargs)
        found = self.follower.after(func, args, kwargs, output)
        if found is not None:
            self.session.hear(lambda heads: from_scores.call_of(found, heads))
        return output

    def _operator(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The operators that attention functions of torch become, however these were called."""
        name = func.__name__.split(".")[0]
        if name == "flex_attention":
            self.session.hear(lambda _: flex.call_of(self.session.read, *args, **kwargs))
            return flex.run(func, args, kwargs)
        if name in VARLEN:
            given = dict(zip(VARLEN_NAMES, args[name.endswith("out") :], strict=False)) | kwargs
            self.session.hear(lambda _: kernels.flash(given))
        return func(*args, **kwargs)

    def _mha(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Torch's function projects q, k and v inside; what its projection returns is what is recorded."""
        before, _local.projected = _local.projected, []
        try:
            output = func(*args, **kwargs)
            projected = _local.projected
        finally:
            _local.projected = before
        names = (
            "query",
            "key",
            "value",
            "embed_dim_to_check",
            "num_heads",
            "in_proj_weight",
            "in_proj_bias",
            "bias_k",
            "bias_v",
            "add_zero_attn",
        )
        given = dict(zip(names, args, strict=False)) | kwargs
        if projected:
            self.session.hear(lambda _: calls.mha(self.session.read, projected[0], given))
        return output


def keep_projections(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Hand on one of torch's projections, and keep what it returns for the block that waits for it."""
    projected = original(*args, **kwargs)
    if _local.projected is not None:
        _local.projected.append(tuple(projected))
    return projected


def head_count(module: nn.Module) -> int | None:
    """How many heads a module says it has."""
    for name in HEAD_COUNTS:
        count = getattr(module, name, None)
        if isinstance(count, int) and not isinstance(count, bool) and count > 0:
            return count
    return None


def install() -> None:
    """Put the listeners in place that a mode cannot stand in for; once for each block."""
    for name in PROJECTIONS:
        patches.install(F, name, keep_projections)
    interface.install()
    foreign.install()
    stance.install()


def remove() -> None:
    """Take them away for one block."""
    for name in PROJECTIONS:
        patches.remove(F, name, keep_projections)
    interface.remove()
    foreign.remove()
    stance.remove()
