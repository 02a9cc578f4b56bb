"""The private names of torch: kernels, the state of a call, and what the compiler does around one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from headscope.compat.arguments import operator_names
from headscope.compat.names import Private

BLOCKS_NEED_IT = "hs.record, hs.ablate and hs.patch do not work; attend, layers, saved recordings and pages do."

CPU_FLASH = Private(
    "torch:ops.aten._scaled_dot_product_flash_attention_for_cpu",
    "computes tiles and the lse on CPUs",
    "The tiled path computes its tiles from matrix products instead, which is slower and as exact.",
)
CPU_FLASH_BACKWARD = Private(
    "torch:ops.aten._scaled_dot_product_flash_attention_for_cpu_backward",
    "computes the gradients of tiles on CPUs",
    "The tiled path computes its tiles from matrix products instead, which is slower and as exact.",
)
SDP_CHOICE = Private(
    "torch:_fused_sdp_choice",
    "names the kernel that torch takes on a GPU",
    "hs.plan says that torch's fused kernel runs, and not which one.",
)
GRAPH_TASK = Private(
    "torch:_C._current_graph_task_id",
    "knows a forward that activation checkpointing runs again in the backward pass",
    "Where a whole training step runs inside of a recording block, checkpointed calls are recorded twice.",
)
DISABLE_FUNCTION = Private(
    "torch:_C.DisableTorchFunction", "computes inside of a block without capturing its own calls", BLOCKS_NEED_IT
)
FUNCTION_MODES = Private(
    "torch:_C._len_torch_function_stack",
    "knows whether another block is open around a call of flex_attention",
    "Inside of a block flex_attention runs as its eager operator, which writes the scores out.",
)
POP_MODE = Private(
    "torch.overrides:_pop_mode", "ends a block below modes that others have put on since", BLOCKS_NEED_IT
)
PUSH_MODE = Private(
    "torch.overrides:_push_mode", "ends a block below modes that others have put on since", BLOCKS_NEED_IT
)
TRANSFORMED = Private(
    "torch:_C._functorch.is_functorch_wrapped_tensor",
    "knows tensors inside of transforms of torch.func",
    "What a block captures there cannot be looked at.",
)
OPERATOR_BASE = Private("torch._ops:OperatorBase", "recognises operators", "Their types are taken from two operators.")
OPERATOR_PACKET = Private(
    "torch._ops:OpOverloadPacket", "recognises operators", "Their types are taken from two operators."
)
PROJECTION_PACKED = Private(
    "torch.nn.functional:_in_projection_packed",
    "reads q, k and v of nn.MultiheadAttention",
    "Layers of torch with one input weight cannot be recorded; other models can.",
)
PROJECTION = Private(
    "torch.nn.functional:_in_projection",
    "reads q, k and v of nn.MultiheadAttention with keys of another size",
    "Layers of torch with separate input weights cannot be recorded; other models can.",
)
ENCODER_FAST_PATH = Private(
    "torch:_transformer_encoder_layer_fwd",
    "keeps the results of nn.TransformerEncoderLayer's fast path inside of a block",
    "A version without it has no fast path to keep, or another one: outputs inside of a block may differ by roundings.",
)
NATIVE_MHA = Private(
    "torch:_native_multi_head_attention",
    "keeps the results of nn.MultiheadAttention's fast path inside of a block",
    "A version without it has no fast path to keep, or another one: outputs inside of a block may differ by roundings.",
)
TENSOR_VERSION = Private(
    "torch:Tensor._version",
    "knows whether a mask or a buffer was written to",
    "Masks are read at every call, and buffers copied back after every look.",
)
TENSOR_BASE = Private(
    "torch:Tensor._base",
    "knows what was chosen among parameters from what attends to the input",
    "Routers and classifiers whose parameters are turned first may be recorded as attention.",
)
WRAPPER = Private(
    "torch:Tensor._make_wrapper_subclass",
    "passes masks through transformers without writing them out",
    'attn_implementation="headscope" does not work; "sdpa" does, and can be recorded.',
)
TREE_MAP = Private(
    "torch.utils._pytree:tree_map",
    "finds masks among nested arguments",
    "Only lists, tuples and dicts are searched.",
)
WEAK_KEYS = Private(
    "torch.utils.weak:WeakIdKeyDictionary",
    "follows attention that a model writes out by hand",
    "Such models cannot be recorded; those that call an attention function can.",
)

GLOBAL_HOOKS = Private(
    "torch.nn.modules.module:_has_any_global_hook",
    "uses rows of a packed map alone, where no hook is on all modules",
    "Packed maps are called on both inputs of a cross-attention, which is slower and as exact.",
)


class CpuFlash(NamedTuple):
    """The kernels below SDPA on CPUs, forward and backward."""

    forward: Any
    backward: Any


def cpu_flash() -> CpuFlash | None:
    """The kernels below SDPA on CPUs, with the arguments that headscope gives by position where they are expected."""
    forward, backward = CPU_FLASH.find(), CPU_FLASH_BACKWARD.find()
    if forward is None or backward is None:
        return None
    inputs = ("query", "key", "value")
    switches = ("dropout_p", "is_causal")
    names, back = operator_names(forward), operator_names(backward)
    same = names[:5] == (*inputs, *switches) and back[:8] == ("grad_out", *inputs, "out", "logsumexp", *switches)
    return CpuFlash(forward, backward) if same and {"attn_mask", "scale"} <= {*names} & {*back} else None


# Found once: traced graphs use it, and may not search.
FLASH = cpu_flash()

any_global_hook: Callable[[], bool] | None = GLOBAL_HOOKS.find()


def operator_types() -> tuple[type, ...]:
    """What operators are, however they are called, for `isinstance`."""
    base, packet = OPERATOR_BASE.find(), OPERATOR_PACKET.find()
    add = torch.ops.aten.add
    kinds = (base or type(add.Tensor).__mro__[1], packet or type(add))
    # In a version that keeps the names for something else, the types of two operators decide.
    return kinds if isinstance(add, kinds) and isinstance(add.Tensor, kinds) else (type(add), type(add.Tensor))


def in_backward() -> bool:
    """Whether the thread is in a backward pass: activation checkpointing runs a forward again there."""
    task = GRAPH_TASK.find()
    if task is None:
        GRAPH_TASK.fall_back()
        return False
    return bool(task() != -1)


def own_computation() -> contextlib.AbstractContextManager[None]:
    """A block in which no mode and no subclass sees the functions of torch that are called.

    Raises:
        UnsupportedVersion: this torch has no such switch.
    """
    switch: contextlib.AbstractContextManager[None] = DISABLE_FUNCTION.get()()
    return switch


def other_modes() -> int:
    """How many function modes are open around the one that asks; 1 where that cannot be known."""
    count = FUNCTION_MODES.find()
    return 1 if count is None else int(count())


def remove_mode(mode: Any) -> None:
    """Take a function mode off the thread's stack, from below those that were put on after it.

    Raises:
        UnsupportedVersion: this torch cannot do it.
    """
    pop, push, above = POP_MODE.get(), PUSH_MODE.get(), []
    while other_modes():
        top = pop()
        if top is mode:
            break
        above.append(top)
    for one in reversed(above):
        push(one)


@contextlib.contextmanager
def without_mode(mode: Any) -> Iterator[None]:
    """A block in which a function mode is off, if it is the innermost one; else it stays.

    Raises:
        UnsupportedVersion: this torch cannot do it.
    """
    pop, push = POP_MODE.get(), PUSH_MODE.get()
    top = pop()
    if top is not mode:
        push(top)
        yield
        return
    try:
        yield
    finally:
        push(top)


def in_transform(x: Tensor) -> bool:
    """Whether a tensor is one of a transform of torch.func (vmap, grad, jvp), inside of which it has no numbers."""
    wrapped = TRANSFORMED.find()
    return wrapped is not None and bool(wrapped(x))


def mha_projections() -> tuple[str, ...]:
    """The functions of `torch.nn.functional` through which `F.multi_head_attention_forward` projects its inputs.

    Raises:
        UnsupportedVersion: this torch has neither.
    """
    found = [name.path.partition(":")[2] for name in (PROJECTION_PACKED, PROJECTION) if name.find() is not None]
    if not found:
        raise PROJECTION_PACKED.missing()
    return tuple(found)


def encoder_fast_paths() -> tuple[str, ...]:
    """The functions of `torch` that layers in evaluation are sent to as a whole; their arguments: `named_arguments`."""
    return tuple(name.path.partition(":")[2] for name in (ENCODER_FAST_PATH, NATIVE_MHA) if name.find() is not None)


def version_of(x: Tensor) -> int | None:
    """How often a tensor was written to; None where nobody counts, as in inference mode."""
    return None if x.is_inference() or TENSOR_VERSION.find() is None else x._version


def base_of(x: Tensor) -> Tensor | None:
    """The tensor that a tensor is a view of; None where it is none, or that cannot be known."""
    return None if TENSOR_BASE.find() is None else x._base


def wrapper_subclass(kind: Any, sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Any:
    """A tensor of a subclass that has sizes, a dtype and a device, and no numbers.

    Raises:
        UnsupportedVersion: this torch makes none.
    """
    WRAPPER.get()
    return Tensor._make_wrapper_subclass(kind, sizes, dtype=dtype, device=device)


def tree_map(change: Callable[[Any], Any], x: Any) -> Any:
    """Nested lists, tuples and dicts with every leaf changed."""
    theirs = TREE_MAP.find()
    if theirs is not None:
        return theirs(change, x)
    if isinstance(x, dict):
        return {key: tree_map(change, value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        parts = [tree_map(change, one) for one in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    return change(x)


def weak_keys() -> MutableMapping[Tensor, Any] | None:
    """An empty dict whose keys are tensors, compared by identity and not kept alive; None where torch has none."""
    kind = WEAK_KEYS.find()
    if kind is None:
        WEAK_KEYS.fall_back()
        return None
    keys: MutableMapping[Tensor, Any] = kind()
    return keys


def children_of(module: nn.Module) -> Any:
    """The submodules of a module under their names, each as often as it was set; the dict itself."""
    return module._modules


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """The buffers of a module; the dict itself, so that they can be put back."""
    return module._buffers


def hooked(module: nn.Module) -> bool:
    """Whether a hook runs when a module is called, its own or one of all modules; True where that cannot be known."""
    return any_global_hook is None or bool(any_global_hook()) or hooked_itself(module)


def hooked_itself(module: nn.Module) -> bool:
    """Whether a module has hooks of its own; True where that cannot be known."""
    own = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name, True) for name in own)
