"""What headscope must know of torch's compiler, none of which is imported before somebody compiles."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, TypeVar

import torch
from torch import nn

from headscope.compat.names import Private

SWITCH = Private(
    "torch.compiler:set_stance",
    "runs compiled models eagerly inside of a block",
    "Compiled models cannot be recorded or edited; record the model before torch.compile.",
)
DYNAMO_CONFIG = Private(
    "torch._dynamo:config.patch",
    "lets FlexAttention be compiled for many masks, and fail when they are too many",
    "After a few kinds of masks torch may run FlexAttention eagerly, with the scores written out.",
)
UNCOMPILED = Private(
    "torch._dynamo:OptimizedModule",
    "finds the model inside of what torch.compile returns",
    "Give the model itself, not what torch.compile returned.",
)
# Under this name a compiled module holds the module that it was made from.
INNER = "_orig_mod"
# What FlexAttention may do, in the names of torch's own settings.
RECOMPILE = ("recompile_limit", "fail_on_recompile_limit_hit")


Asked = TypeVar("Asked", bound=Callable[..., Any])


def assumed_constant(asked: Asked) -> Asked:
    """What `torch.compiler.assume_constant_result` does, without the compiler and Triton, which it imports at once.

    They take 150 MB and some seconds of everything that imports this.
    """
    asked._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return asked


def eager_mode() -> contextlib.AbstractContextManager[None] | None:
    """The switch that sends every compiled function of the process to the code it was made from, already on.

    None while nothing was compiled, and in a version without such a switch, which is said in a warning.
    """
    if "torch._dynamo" not in sys.modules:
        return None
    switch = SWITCH.find()
    if switch is None:
        SWITCH.fall_back()
        return None
    switched: contextlib.AbstractContextManager[None] = switch("force_eager")
    return switched


@functools.cache
def compiled_frame() -> CodeType:
    """The code of the function that runs around everything that is compiled.

    Asked of a function that is given to the compiler and never called; so its name does not matter.
    """
    with torch.compiler.set_stance("default"):
        around = torch.compile(_nothing, backend="eager")
    code: CodeType = around.__code__
    return code


def _nothing() -> None:
    """A function to be given to the compiler."""


def compiled_calls(most: int = 2) -> int:
    """How many compiled calls the caller is in, counted up to `most`, be they compiled or sent to eager code."""
    if "torch._dynamo" not in sys.modules:
        return 0
    calls, code = 0, compiled_frame()
    frame: FrameType | None = sys._getframe()
    while frame and calls < most:
        calls += frame.f_code is code
        frame = frame.f_back
    return calls


@contextlib.contextmanager
def many_compilations(limit: int) -> Iterator[None]:
    """A block in which a function may be compiled for `limit` kinds of inputs, and more are an error."""
    patch, config = DYNAMO_CONFIG.find(), torch._dynamo.config
    known = {name for name in RECOMPILE if hasattr(config, name)}
    if patch is None or len(known) < len(RECOMPILE):
        DYNAMO_CONFIG.fall_back()
    options = {name: value for name, value in zip(RECOMPILE, (limit, True), strict=True) if name in known}
    with contextlib.nullcontext() if patch is None or not options else patch(**options):
        yield


def uncompiled(model: Any) -> Any:
    """The model that a compiled one was made from; any other as it is."""
    inner = getattr(model, INNER, None)
    return inner if isinstance(inner, nn.Module) else model


def uncompiled_path(path: str) -> str:
    """The path of a module in the model that was compiled: `_orig_mod.layers.0` is `layers.0`."""
    return ".".join(part for part in path.split(".") if part != INNER)
