"""Are the numbers of a tensor known? The one place that asks.

They are not while a program is traced (`torch.compile`, `torch.export`, `make_fx`, `torch.jit.trace`), inside
`torch.func` transforms, and in tensors without storage (`FakeTensorMode`, the device "meta"). Where they are not,
nothing may be read into Python, and nothing that is made may be kept for a later call.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headscope.compat import tracing

_jit_trace, _transforms, _is_transformed = (
    tracing.NAMES.jit_trace,
    tracing.NAMES.transforms,
    tracing.NAMES.transformed,
)
_dispatch_modes, _dispatch_mode = tracing.NAMES.dispatch_modes, tracing.NAMES.dispatch_mode
_FAKE, _PROXY, _TransformType = tracing.NAMES.fake, tracing.NAMES.proxy, tracing.NAMES.transform_type
_forward_level = tracing.forward_level
PLAIN = frozenset({Tensor, torch.nn.Parameter, torch.nn.Buffer})


def known(*tensors: Tensor | None) -> bool:
    """Whether Python may read the numbers of these tensors, and keep what it makes of them for later calls.

    Without tensors: whether that holds for tensors that are made now.
    """
    # First, and alone: torch.compile stops reading this function here.
    if torch.compiler.is_compiling():
        return False
    if _jit_trace() is not None or _transforms() is not None:
        return False
    if _dispatch_modes() and (_dispatch_mode(_FAKE) is not None or _dispatch_mode(_PROXY) is not None):
        return False
    return not any(
        t.is_meta or (type(t) not in PLAIN and is_fake(t)) or _is_transformed(t) for t in tensors if t is not None
    )


def no_modes() -> bool:
    """Whether nothing traces, transforms or intercepts what runs now; asked where nothing is compiled."""
    return _jit_trace() is None and _transforms() is None and not _dispatch_modes() and _forward_level() < 0


def is_fake(tensor: Tensor) -> bool:
    """Whether a tensor is one of a `FakeTensorMode`, used inside or outside of it."""
    kind = tracing.fake_tensor()
    return kind is not None and isinstance(tensor, kind)


def jit_tracing() -> bool:
    """Whether `torch.jit.trace` is recording: sizes are tensors then."""
    return not torch.compiler.is_compiling() and _jit_trace() is not None


def leaves_python() -> bool:
    """Whether a graph is made that has to run without this package: ONNX, or `torch.jit.trace`."""
    return jit_tracing() or torch.onnx.is_in_onnx_export()


class Transforms(NamedTuple):
    """What `torch.func` and forward-mode differentiation ask of the call that is running.

    Attributes:
        order: how many reverse-mode derivatives are taken of it.
        forward: whether a forward-mode derivative is.
        batched: whether it runs under `vmap`.
    """

    order: int
    forward: bool
    batched: bool


def transforms(*tensors: Tensor) -> Transforms | None:
    """The transforms that are active, outer `requires_grad` of these tensors included; None without any."""
    if torch.compiler.is_compiling():
        return None
    # A level of forward mode may be open without any transform: torch.autograd.forward_ad.
    forward = tracing.forward_level() >= 0
    stack: Any = _transforms()
    if stack is None and not forward:
        return None
    kinds = [level.key() for level in stack or ()]
    order = kinds.count(_TransformType.Grad) + any(map(_outer_grad, tensors))
    return Transforms(order, forward or _TransformType.Jvp in kinds, _TransformType.Vmap in kinds)


def _outer_grad(tensor: Tensor) -> bool:
    """Whether autograd outside of every transform follows a tensor."""
    if tracing.NAMES.unwrapped is None:
        return True
    while _is_transformed(tensor):
        tensor = tracing.NAMES.unwrapped(tensor)
    return tensor.requires_grad


def in_mode(tensor: Tensor) -> Tensor:
    """A tensor as the active mode takes it: a `FakeTensorMode` takes none that was made outside of it."""
    if torch.compiler.is_compiling() or not _dispatch_modes():
        return tensor
    mode: Any = _dispatch_mode(_FAKE)
    if mode is None or mode.allow_non_fake_inputs or is_fake(tensor):
        return tensor
    if _dispatch_mode(_PROXY) is None:
        taken: Tensor = mode.from_tensor(tensor)
        return taken
    # make_fx: a constant of the graph, which it takes where it is made.
    with tracing.NAMES.no_modes():
        numbers = tensor.detach().tolist()
    return torch.tensor(numbers, dtype=tensor.dtype, device=tensor.device).view(tensor.shape)


@contextmanager
def sizes_as_numbers() -> Iterator[None]:
    """Let `torch.jit.trace` compare sizes without a warning: for other sizes of heads it would be another graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield


def written(tensor: Tensor) -> str:
    """The numbers of a small tensor for a message or a repr; its shape where they are not known."""
    return str(tensor.tolist()) if known(tensor) else f"<{tuple(tensor.shape)} {tensor.dtype}>".replace("torch.", "")
