"""The private names of transformers: its attention interface, and the rules that its masks are made of.

Nothing here imports transformers before a caller does, except what is asked for a model of transformers.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headscope.compat.arguments import argument_names
from headscope.compat.compiler import assumed_constant
from headscope.compat.names import Private

# How many keys before and after its own a query sees; None for all.
Sides = tuple[int | None, int | None]

INTERFACE = Private(
    "transformers.modeling_utils:AttentionInterface.get_interface",
    "captures attention of models of transformers where these choose a kernel",
    'Their calls are captured at torch\'s own functions; models on "eager" attention may not be seen.',
)
MASKS = "transformers.masking_utils"
WITHOUT_MASKS = 'attn_implementation="headscope" does not work; "sdpa" does, and can be recorded.'
RULES = {
    name: Private(f"{MASKS}:{name}", f"makes masks for {use}", WITHOUT_MASKS)
    for name, use in (
        ("causal_mask_function", "causal models"),
        ("bidirectional_mask_function", "encoders"),
        ("sdpa_mask", "rules that are no window"),
        ("prepare_padding_mask", "padded batches"),
    )
}
IMPLEMENTATION = Private(
    "transformers:PreTrainedConfig._attn_implementation",
    "names the attention implementation of a model that could not be recorded",
    "The message does not name it.",
)

SUPPORTS = Private(
    "transformers:PreTrainedModel._supports_sdpa",
    "knows the models that compute attention with code of their own, and add masks to their scores",
    'Give such models attn_implementation="eager".',
)

HANDS_ON = {
    flag: Private(f"transformers:PreTrainedModel.{flag}", use, "Their masks are written out, as numbers to add.")
    for flag, use in (
        ("_supports_attention_backend", "knows the models without sdpa that give their masks to an attention function"),
        ("_supports_flex_attn", "knows the models without sdpa whose own code never computes with a mask"),
    )
}

COLLECTOR = Private(
    "transformers.utils.output_capturing:_active_collector",
    "knows that a model returns its weights though it does not say so to its layers",
    "Where output_attentions=True gives no weights, take them from hs.record.",
)

BANDED_CLASSES = {
    "transformers.models.longformer.modeling_longformer": "LongformerSelfAttention",
    "transformers.models.led.modeling_led": "LEDEncoderSelfAttention",
}
BANDED_METHODS = (
    "_sliding_chunks_query_key_matmul",
    "_sliding_chunks_matmul_attn_probs_value",
    "_compute_attn_output_with_global_indices",
)
BANDED = {
    (home, method): Private(
        f"{home}:{kind}.{method}",
        "records and edits the windows of Longformer and LED",
        "Their attention is listed as missed; that of other models is recorded.",
    )
    for home, kind in BANDED_CLASSES.items()
    for method in BANDED_METHODS
}


class Masks(NamedTuple):
    """The functions of transformers that make its masks."""

    causal: Callable[..., Any]
    bidirectional: Callable[..., Any]
    dense: Callable[..., Any]
    padding: Callable[..., Any]


def masks() -> Masks:
    """The functions of transformers that make its masks.

    Raises:
        UnsupportedVersion: this version does not have one of them.
    """
    return Masks(*(name.get() for name in RULES.values()))


@assumed_constant
def without_sdpa(kind: type) -> bool:
    """Whether the models of a class of configurations have no sdpa: what no mask means to them, "eager" says.

    False where no model of the class is loaded.
    """
    if SUPPORTS.find() is None:
        SUPPORTS.fall_back()
        return False
    models = models_of(kind)
    return bool(models) and not any(model._supports_sdpa for model in models)


@assumed_constant
def adds_masks(kind: type) -> bool:
    """Whether the models of a class of configurations have no sdpa and add masks to their scores with their own code.

    Models that also run on FlexAttention give their masks, which are no tensors there, to the attention function.
    """
    if not without_sdpa(kind):
        return False
    if any(flag.find() is None for flag in HANDS_ON.values()):
        return True
    return not any(all(getattr(model, flag) for flag in HANDS_ON) for model in models_of(kind))


@functools.lru_cache(maxsize=256)
def models_of(kind: type) -> tuple[Any, ...]:
    """The loaded classes of models of a class of configurations."""
    from transformers import PreTrainedModel

    found, waiting = [], [PreTrainedModel]
    while waiting:
        waiting += (below := waiting.pop().__subclasses__())
        found += [model for model in below if getattr(model, "config_class", None) is kind]
    return tuple(found)


def captures_weights() -> bool:
    """Whether the model that runs returns the weights of its layers, as far as transformers captures them by itself."""
    collector = None if torch.compiler.is_compiling() else COLLECTOR.find(load=False)
    wanted = None if collector is None else collector.get()
    return wanted is not None and any(str(key).endswith("attentions") for key in wanted)


def attention_interface() -> type | None:
    """The class whose `get_interface` models call for a kernel; None while no model of transformers was loaded."""
    if INTERFACE.find(load=False) is not None:
        owner, _, _ = INTERFACE.path.rpartition(".")
        kind: type | None = Private(owner, INTERFACE.use, INTERFACE.without).find(load=False)
        return kind
    home = INTERFACE.path.partition(":")[0]
    if Private(home, INTERFACE.use, INTERFACE.without).find(load=False) is not None:
        INTERFACE.fall_back()
    return None


def banded_attention() -> list[type]:
    """The loaded classes whose attention is a band of diagonals, computed in chunks by methods of their own."""
    found = []
    for home, kind in BANDED_CLASSES.items():
        methods = [BANDED[home, method] for method in BANDED_METHODS]
        if all(method.find(load=False) is not None for method in methods):
            found.append(getattr(sys.modules[home], kind))
        elif home in sys.modules:
            next(method for method in methods if method.find(load=False) is None).fall_back()
    return found


def kernel_arguments(kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an attention kernel of transformers by their names.

    Kernels do not agree about the order of what comes after the mask: "eager" takes scaling before dropout, "sdpa"
    dropout before scaling.

    Args:
        args: all positional arguments, from the module on.
    """
    return dict(zip(argument_names(kernel), args, strict=False)) | kwargs


def attention_implementation(model: Any) -> str | None:
    """What a model of transformers computes attention with: "sdpa", "eager", …; None for other models."""
    return getattr(getattr(model, "config", None), "_attn_implementation", None)


def source_of(model: Any) -> str:
    """Where a model of transformers was loaded from; "" for other models."""
    return str(getattr(getattr(model, "config", None), "name_or_path", None) or "")


def sides_of(rule: Callable[..., Any]) -> Sides | None:
    """How many keys before and after its own a query sees by a mask rule of transformers; None for other rules.

    A rule is known by its name, and taken at its word only after it has answered as a window of that size does: in a
    version that gives the name to something else it is one of the other rules, which are asked about every pair.
    """
    sides = named_sides(rule)
    return sides if sides is not None and answers_as(rule, sides) else None


def named_sides(rule: Callable[..., Any]) -> Sides | None:
    """What the name of a rule, and the numbers it holds, say."""
    name = getattr(rule, "__qualname__", "").replace(".<locals>", "")
    if name == "causal_mask_function":
        return None, 0
    if name == "bidirectional_mask_function":
        return None, None
    inside = closure(rule)
    size = inside.get("sliding_window")
    if name == "sliding_window_overlay.inner_mask" and isinstance(size, int):
        return size - 1, None
    if name == "sliding_window_bidirectional_overlay.inner_mask" and isinstance(size, int):
        return size, size
    if name == "and_masks.and_mask":
        parts = [sides_of(part) for part in inside.get("mask_functions", ())]
        known = [part for part in parts if part is not None]
        if parts and len(known) == len(parts):
            return narrowest(left for left, _ in known), narrowest(right for _, right in known)
    return None


def closure(function: Callable[..., Any]) -> dict[str, Any]:
    """The variables of the functions around a function that it uses."""
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    return {} if code is None else dict(zip(code.co_freevars, (cell.cell_contents for cell in cells), strict=False))


def narrowest(sides: Iterable[int | None]) -> int | None:
    """The smallest of some numbers of keys; None is no limit."""
    return min((side for side in sides if side is not None), default=None)


def answers_as(rule: Callable[..., Any], sides: Sides) -> bool:
    """Whether a rule lets a query see exactly the keys of such a window, asked at the edges of the window."""
    if torch.compiler.is_compiling():
        return asked(rule, sides)
    return known_answer(getattr(rule, "__code__", None), sides, Rule(rule))


class Rule:
    """A mask rule, for a cache: rules of one code and one window are made anew for every mask, and equal here."""

    def __init__(self, rule: Callable[..., Any]) -> None:
        self.rule = rule

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rule)

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(maxsize=256)
def known_answer(code: Any, sides: Sides, rule: Rule) -> bool:
    """`asked`, once for each code and window."""
    return asked(rule.rule, sides)


def asked(rule: Callable[..., Any], sides: Sides) -> bool:
    """`answers_as`, without a cache; rules that join others take tensors alone, single ones take numbers, too."""
    left, right = sides
    own = max(left or 0, right or 0) + 2
    near = {own + edge + step for edge in edges(sides) for step in (-1, 0, 1)}
    keys = sorted({0, 1, own - 1, own, own + 1, own + 7} | near)
    window = [(left is None or own - left <= key) and (right is None or key <= own + right) for key in keys]
    try:
        if closure(rule).get("mask_functions") is None:
            return [bool(rule(0, 0, own, key)) for key in keys] == window
        nought, query, key = (torch.tensor(x, device="cpu") for x in (0, own, keys))
        if torch.compiler.is_compiling() or type(query) is not Tensor:
            return True  # traced: no answer has a value; the single rules have given theirs
        seen: list[bool] = rule(nought, nought, query, key).expand(len(keys)).tolist()
        return seen == window
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError):
        return False


def edges(sides: Sides) -> list[int]:
    """How far from its own the first and the last key of a window are, where it has them."""
    left, right = sides
    return [*([] if left is None else [-left]), *([] if right is None else [right])]
