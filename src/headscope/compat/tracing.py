"""The private names of torch that say in which modes a program runs: traced, transformed, fake, autocast, kernels.

All are found once: they are asked at every call of attention.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from headscope.compat.names import Private
from headscope.compat.torch import TRANSFORMED

UNSEEN = "Inside of them attention may raise an error about numbers that are not known; elsewhere nothing changes."

JIT_TRACE = Private("torch:_C._get_tracing_state", "knows torch.jit.trace", "torch.jit.is_tracing is asked instead.")
TRANSFORMS = Private("torch:_C._functorch.get_interpreter_stack", "knows transforms of torch.func", UNSEEN)
TRANSFORM_TYPE = Private("torch:_C._functorch.TransformType", "tells the transforms of torch.func apart", UNSEEN)
UNWRAPPED = Private(
    "torch:_C._functorch.get_unwrapped",
    "knows whether autograd outside of a transform follows a tensor",
    "Every tensor is taken as followed, which is slower and as exact.",
)
FORWARD_LEVEL = Private("torch.autograd.forward_ad:_current_level", "knows forward-mode differentiation", UNSEEN)
DISPATCH_MODES = Private("torch:_C._len_torch_dispatch_stack", "knows FakeTensorMode and make_fx", UNSEEN)
DISPATCH_MODE = Private("torch:_C._get_dispatch_mode", "knows FakeTensorMode and make_fx", UNSEEN)
FAKE_KEY = Private("torch:_C._TorchDispatchModeKey.FAKE", "knows FakeTensorMode", UNSEEN)
PROXY_KEY = Private("torch:_C._TorchDispatchModeKey.PROXY", "knows make_fx", UNSEEN)
DISPATCH_KEYS = Private(
    "torch:_C._dispatch_keys",
    "knows many gradients at once: torch.autograd.grad(is_grads_batched=True)",
    "There the backward of the tiles raises torch's own error; backend='formula' has it.",
)
FAKE_TENSOR = Private("torch._subclasses.fake_tensor:FakeTensor", "knows the tensors of FakeTensorMode", UNSEEN)
NO_MODES = Private(
    "torch.utils._python_dispatch:_disable_current_modes",
    "makes constants of masks and biases inside of make_fx",
    "make_fx refuses masks and biases that were made outside of it; give their tensors as inputs.",
)
ANY_AUTOCAST = Private(
    "torch:_C._is_any_autocast_enabled",
    "asks for autocast on no device where it is on for none",
    "Autocast is asked for on every call, which is slower and as exact.",
)
FLASH_SDP = Private(
    "torch:_C._get_flash_sdp_enabled",
    "keeps to torch.nn.attention.sdpa_kernel",
    "torch.backends.cuda is asked instead; torch.compile may break its graph there.",
)
EFFICIENT_SDP = Private("torch:_C._get_mem_efficient_sdp_enabled", FLASH_SDP.use, FLASH_SDP.without)
CUDNN_SDP = Private("torch:_C._get_cudnn_sdp_enabled", FLASH_SDP.use, FLASH_SDP.without)
MATH_SDP = Private("torch:_C._get_math_sdp_enabled", FLASH_SDP.use, FLASH_SDP.without)
CURRENT_NODE = Private(
    "torch:_C._current_autograd_node",
    "gives the backward of torch's kernel on CPUs a derivative",
    "Second derivatives through it raise torch's own error; backend='formula' has them.",
)


class Names(NamedTuple):
    """What is asked of torch, with something in the place of what is missing.

    Attributes:
        fake, proxy: the keys of the modes that hold tensors without numbers; None where they have none.
        forward_level: the level of forward-mode differentiation, below 0 without.
    """

    jit_trace: Callable[[], Any]
    transforms: Callable[[], Any]
    transform_type: Any
    transformed: Callable[[Tensor], bool]
    unwrapped: Callable[[Tensor], Tensor] | None
    dispatch_modes: Callable[[], int]
    dispatch_mode: Callable[[Any], Any]
    fake: Any
    proxy: Any
    no_modes: Callable[[], contextlib.AbstractContextManager[Any]]
    any_autocast: Callable[[], bool]
    kernels: tuple[Callable[[], bool], Callable[[], bool], Callable[[], bool], Callable[[], bool]]


class Kinds:
    """The transforms of torch.func in a version that does not tell them apart: none is any of these."""

    Grad = Jvp = Vmap = object()


def found() -> Names:
    """The names that this torch has, and what is asked instead of the others."""
    modes, mode = DISPATCH_MODES.find(), DISPATCH_MODE.find()
    fake, proxy = FAKE_KEY.find(), PROXY_KEY.find()
    complete = None not in (modes, mode, fake, proxy)
    backends = torch.backends.cuda
    return Names(
        JIT_TRACE.find() or jit_trace,
        TRANSFORMS.find() or nothing,
        TRANSFORM_TYPE.find() or Kinds,
        TRANSFORMED.find() or never,
        UNWRAPPED.find(),
        modes if complete else no_modes_open,  # type: ignore[arg-type]
        mode if complete else nothing,  # type: ignore[arg-type]
        fake,
        proxy,
        NO_MODES.find() or contextlib.nullcontext,
        ANY_AUTOCAST.find() or always,
        (
            FLASH_SDP.find() or backends.flash_sdp_enabled,
            EFFICIENT_SDP.find() or backends.mem_efficient_sdp_enabled,
            CUDNN_SDP.find() or backends.cudnn_sdp_enabled,
            MATH_SDP.find() or backends.math_sdp_enabled,
        ),
    )


def jit_trace() -> object | None:
    """Something while `torch.jit.trace` is recording."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing or None


def nothing(*_: Any) -> None:
    """No mode, no transform."""


def no_modes_open() -> int:
    """No dispatch mode that is known."""
    return 0


def never(_: Tensor) -> bool:
    """No tensor that is known to be one of a transform."""
    return False


def always() -> bool:
    """There may be autocast."""
    return True


NAMES = found()


_LEVEL = FORWARD_LEVEL.path.partition(":")[2]


def forward_level() -> int:
    """The level of forward-mode differentiation; below 0 where none is open, or none can be known."""
    # Asked at every call of attention: the module is public, and looked up once.
    level = getattr(forward_ad, _LEVEL, None)
    return -1 if level is None else int(level)


def batched(tensor: Tensor) -> bool:
    """Whether a gradient stands for many: of `torch.func.vmap`, or of `torch.autograd.grad(is_grads_batched=True)`."""
    keys = DISPATCH_KEYS.find()
    return keys is not None and "Batched" in str(keys(tensor))


def fake_tensor() -> type | None:
    """The class of the tensors of a `FakeTensorMode`; None where there is none."""
    return FAKE_TENSOR.find()


def current_node() -> Any | None:
    """The node of autograd whose backward is running; None where that cannot be known."""
    node = CURRENT_NODE.find()
    return None if node is None else node()
