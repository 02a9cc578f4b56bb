"""Where a head's output can be changed: the calls that recording listens to, edited on their way back to the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from headscope.attention.api import attend, attend_lse
from headscope.errors import LookError, ModelError
from headscope.recording import patches
from headscope.recording.calls import four_axes
from headscope.recording.interface import owner
from headscope.recording.listening import PROJECTIONS, head_count
from headscope.recording.modules import Running, Stack


@dataclass(frozen=True)
class Output:
    """What one attention call gives back.

    Attributes:
        layer: the number of the calling module, in the order of first calls, as in a recording.
        values: `(b, h, q, e)`.
        v: the values that went in, `(b, g, k, e)`.
    """

    layer: int
    values: Tensor
    v: Tensor


# An output -> what the model gets in its place, of the same shape; None leaves it as it is.
Edit = Callable[[Output], Tensor | None]


class Local(threading.local):
    """What one thread has going on."""

    def __init__(self) -> None:
        self.editors: list[Editor] = []
        # Inside a kernel of transformers its result is edited, not what it calls.
        self.kernels = 0
        self.merging: list[Merging] = []


@dataclass
class Merging:
    """A call of `F.multi_head_attention_forward` while it runs: its heads are seen where they go into the output."""

    editor: Editor
    given: dict[str, Any]
    running: Running
    v: Tensor | None = None


local = Local()

# The first arguments of `F.multi_head_attention_forward`.
MHA = (
    *("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v"),
    *("add_zero_attn", "dropout_p", "out_proj_weight"),
)


class Editor(TorchFunctionMode):
    """A block in which the outputs of a model's attention calls are edited; nothing of it is left behind."""

    def __init__(self, where: str, model: nn.Module | object, edit: Edit, layers: Iterable[int] = ()) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise ModelError(
                f"{where}: given a {type(model).__name__}; give the torch.nn.Module whose heads are to be changed."
            )
        self.where, self.model, self.edit, self.layers = where, model, edit, set(layers)
        self.numbers: dict[str, int] = {}
        self.stack: Stack | None = None

    def __enter__(self) -> Editor:
        if self.stack is not None:
            raise ModelError(f"{self.where}: this block is open already; call hs.{self.where}(...) again for another.")
        self.stack = Stack(self.model)
        for name, listener in LISTENERS:
            patches.install(F, name, listener)
        self.kind = owner()
        if self.kind is not None:
            patches.install(self.kind, "get_interface", listen)
        local.editors.append(self)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        local.editors.remove(self)
        if self.kind is not None:
            patches.remove(self.kind, "get_interface", listen)
        for name, listener in LISTENERS:
            patches.remove(F, name, listener)
        assert self.stack is not None
        self.stack.remove()
        self.stack = None
        missing = self.layers - set(self.numbers.values())
        if kind is None and missing:
            seen = f"there are {len(self.numbers)}, from 0 to {len(self.numbers) - 1}" if self.numbers else "none was"
            raise LookError(f"{self.where}: layer {min(missing)} was not called in this block; {seen}.")

    def change(self, values: Tensor, v: Tensor, running: Running) -> Tensor:
        """The edited output of one call."""
        number = self.numbers.setdefault(running.name, len(self.numbers))
        if self.layers and number not in self.layers:
            return values
        # What an edit computes is not the model's, and not edited again.
        with torch._C.DisableTorchFunction():
            edited = self.edit(Output(number, values, v))
        return values if edited is None else edited

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        running = self.stack.running[-1] if self.stack is not None and self.stack.running else None
        if running is None:
            return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            given = dict(zip(MHA, args, strict=False)) | kwargs
            local.merging.append(Merging(self, given, running))
            try:
                return func(*args, **kwargs)
            finally:
                local.merging.pop()
        output = func(*args, **kwargs)
        if local.kernels or local.merging:
            return output
        if func is F.scaled_dot_product_attention:
            v = args[2] if len(args) > 2 else kwargs["value"]
            heads = head_count(running.module)
            edited = self.change(
                four_axes(output, output.shape[:-3], heads), four_axes(v, v.shape[:-3], heads), running
            )
            return edited.reshape(output.shape)
        if func is attend or func is attend_lse:
            v = args[2] if len(args) > 2 else kwargs["v"]
            if func is attend:
                return self.change(output, v, running)
            return self.change(output[0], v, running), output[1]
        return output


def keep_values(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Torch's own projection inside `multi_head_attention_forward`: its v is what a patch of weights needs."""
    projected = original(*args, **kwargs)
    for one in local.merging:
        one.v = projected[2]
    return projected


def merge(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`F.linear`: where `multi_head_attention_forward` projects its merged heads, they are edited first."""
    weight = args[1] if len(args) > 1 else kwargs.get("weight")
    for one in reversed(local.merging):
        if one.v is not None and weight is one.given["out_proj_weight"]:
            args = (merged(one, args[0], one.v), *args[1:])
    return original(*args, **kwargs)


def merged(one: Merging, joined: Tensor, v: Tensor) -> Tensor:
    """Merged heads `(positions · batch, m)`, edited."""
    heads = one.given["num_heads"]
    batch = 1 if one.given["query"].ndim == 2 else one.given["query"].shape[1]
    split = joined.reshape(-1, batch, heads, joined.shape[-1] // heads).permute(1, 2, 0, 3)
    v = v if v.ndim == 3 else v[:, None]
    v = v.reshape(len(v), batch, heads, -1).permute(1, 2, 0, 3)
    return one.editor.change(split, v, one.running).permute(2, 0, 1, 3).reshape(joined.shape)


def listen(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`get_interface` of transformers, whose kernels are edited when the thread has a block open."""
    kernel = original(*args, **kwargs)
    return Edited(kernel) if local.editors else kernel


class Edited:
    """An attention kernel of transformers whose heads are edited; its result is `(b, q, h, e)` and perhaps weights."""

    def __init__(self, kernel: Callable[..., Any]) -> None:
        self.kernel = kernel

    def __call__(self, module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The kernel's answer, edited."""
        local.kernels += 1
        try:
            output = self.kernel(module, query, key, value, *args, **kwargs)
        finally:
            local.kernels -= 1
        values = output[0] if isinstance(output, tuple) else output
        for editor in local.editors:
            running = editor.stack.running[-1] if editor.stack is not None and editor.stack.running else None
            if running is not None:
                values = editor.change(values.transpose(1, 2), value, running).transpose(1, 2).contiguous()
        return (values, *output[1:]) if isinstance(output, tuple) else values

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernel, name)


LISTENERS = (("linear", merge), *((name, keep_values) for name in PROJECTIONS))
