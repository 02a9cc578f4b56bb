"""What the context says of precision and kernels: autocast, and torch's `sdpa_kernel`.

Autocast as torch's own attention takes it: inputs become the autocast dtype first, and inside it is off.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from headscope.attention.bias import Bias, DenseBias
from headscope.compat.tracing import NAMES

_any_autocast = NAMES.any_autocast
_flash, _efficient, _cudnn, _math = NAMES.kernels


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """The dtype that autocast gives to matrix products on the device of a tensor; None where it is off."""
    if not torch.compiler.is_compiling() and not _any_autocast():
        return None
    kind = tensor.device.type
    # Devices without an autocast of their own (meta) have nothing to ask for.
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor as autocast casts it: float64 and integers stay."""
    return tensor if tensor.dtype == torch.float64 or not tensor.is_floating_point() else tensor.to(dtype)


def cast_bias(bias: Bias, dtype: torch.dtype) -> Bias:
    """A bias whose numbers exist is cast; one that is made by distance is made in the dtype that is needed."""
    if not isinstance(bias, DenseBias) or bias.values.dtype == dtype:
        return bias
    return DenseBias(cast(bias.values, dtype))


def autocast_off(tensor: Tensor) -> AbstractContextManager[object]:
    """A block without autocast on the device of a tensor; nothing at all where it is off already."""
    return nullcontext() if autocast_dtype(tensor) is None else torch.autocast(tensor.device.type, enabled=False)


def flash_allowed() -> bool:
    """Whether `torch.nn.attention.sdpa_kernel` allows the flash kernel."""
    return _flash()


def only_math(device: torch.device) -> bool:
    """Whether `torch.nn.attention.sdpa_kernel` allows no fused kernel on a device; a CPU has only the flash one."""
    fused = _flash()
    if device.type != "cpu":
        fused = fused or _efficient() or _cudnn()
    return not fused


def no_kernel(device: torch.device) -> bool:
    """Whether `torch.nn.attention.sdpa_kernel` allows no kernel at all that a device has."""
    return only_math(device) and not _math()


NO_KERNEL = "torch's sdpa_kernel(...) allows no kernel that this device has; allow SDPBackend.MATH as well"
