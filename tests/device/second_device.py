"""A second device that every machine has: its tensors lie on the CPU, and cannot be mixed with those of the CPU.

As on a GPU an operator raises for tensors of both devices, factories obey `device=`, and `.numpy()` is refused. What a
GPU computes in another order or with other kernels is not shown here.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "second"
aten = torch.ops.aten
# What takes tensors of both devices: copies, and indices of the CPU.
MIXED = {aten.copy_, aten._to_copy, aten.index, aten.index_put_, aten.index_put, aten._index_put_impl_}


class Second(Tensor):
    """A tensor of the second device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Second:
        self = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        self.inner = inner
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return called(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(indices(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(indices(index), value)

    def __repr__(self, **_: Any) -> str:
        return f"{self.inner!r} on {NAME}"

    def __deepcopy__(self, memo: Any) -> Any:
        copy = Second(self.inner.detach().clone()).requires_grad_(self.requires_grad)
        return torch.nn.Parameter(copy, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copy


def indices(index: Any) -> Any:
    """An index whose lists are tensors of the CPU; torch would make them as `torch.tensor` does, see there."""
    if isinstance(index, tuple):
        return tuple(torch.tensor(one) if isinstance(one, list) else one for one in index)
    return torch.tensor(index) if isinstance(index, list) else index


def called(func: Any, args: Any, kwargs: Any) -> Any:
    """An operator of the second device: its tensors must lie there, and what it makes lies there."""
    given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    mine = [x for x in given if isinstance(x, Second)]
    others = [x for x in given if not isinstance(x, Second) and x.ndim and not x.is_meta]
    if mine and others and func.overloadpacket not in MIXED:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! "
            f"({func.overloadpacket.__name__})"
        )
    wanted = kwargs.get("device")
    there = wanted is None or torch.device(wanted).type == NAME
    if wanted is not None and there:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    kwargs.pop("pin_memory", None)
    if func.overloadpacket is aten.copy_:
        into, source = args[0], args[1]
        (into.inner if isinstance(into, Second) else into).copy_(source.inner if isinstance(source, Second) else source)
        return into
    plain_args, plain_kwargs = tree_map_only(Second, lambda x: x.inner, (args, kwargs))
    output = func(*plain_args, **plain_kwargs)
    if not there or not (mine or wanted is not None):
        return output
    written = {id(x.inner): x for x in mine}
    return tree_map_only(Tensor, lambda x: written[id(x)] if id(x) in written else Second(x), output)


class Module(_DummyBackendModule):
    """What torch asks of the device. It cannot be unregistered: to the tests that come after, it is not available.

    The Trainer of transformers would train on the CPU while `torch.accelerator` shows another device.
    """

    def is_available(self) -> bool:
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


@functools.cache
def register() -> None:
    """Make the device known to torch, once in a process."""
    _setup_privateuseone_for_python_backend(NAME, Module())
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda op, *args, **kwargs: called(op, args, kwargs), "PrivateUse1")
    register.library = library  # type: ignore[attr-defined]  # which ends with the object


def tensor(original: Any) -> Any:
    """`torch.tensor`, which copies to its device in a way that no backend made in Python takes part in."""

    @functools.wraps(original)
    def made(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if device is None or torch.device(device).type != NAME:
            return original(*args, device=device, **kwargs)
        return original(*args, **kwargs).to(device)

    return made
