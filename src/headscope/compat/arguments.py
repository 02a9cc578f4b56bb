"""Arguments by their names, as the called function itself declares them: no order of positions is assumed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from typing import Any

import torch

from headscope.compat.names import Private, advice, version
from headscope.errors import UnsupportedVersion

VARLEN = Private(
    "torch.nn.attention.varlen:_varlen_attn",
    "records calls of torch.nn.attention.varlen.varlen_attn",
    "Its calls are not seen; those of other attention functions are.",
)
# The operators of `torch.nn.attention.varlen`, and those of their arguments that change what a call computes.
VARLEN_NAMES = ("_varlen_attn", "_varlen_attn_out")
VARLEN_KNOWN = {
    "query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k", "is_causal", "scale", "window_size",
    "enable_gqa", "seqused_k", "block_table",
}  # fmt: skip
VARLEN_HARMLESS = {"num_splits", "out"}


def named_arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names; those that were not given are not in it.

    Args:
        func: an operator, a function of Python, or a built-in function of torch that is an operator's.

    Raises:
        UnsupportedVersion: the function takes more positions than it declares, or declares none.
    """
    names = argument_names(func)
    if len(args) > len(names):
        called = getattr(func, "__name__", repr(func))
        raise UnsupportedVersion(
            f"{called} of torch {version('torch')} was called with {len(args)} positional arguments and declares "
            f"{len(names)}: {', '.join(names) or 'none'}; headscope cannot read this call. {advice('torch')}"
        )
    return dict(zip(names, args, strict=False)) | kwargs


@functools.lru_cache(maxsize=512)
def argument_names(func: Any) -> tuple[str, ...]:
    """The names of a function's arguments that may be given by position, in their order; empty when nobody knows."""
    names = operator_names(func)
    if names:
        return names
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):
        return operator_names(getattr(torch.ops.aten, getattr(func, "__name__", ""), None))
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(one.name for one in parameters if one.kind in positional)


def operator_names(operator: Any) -> tuple[str, ...]:
    """The names of an operator's arguments, in the order of its schema; empty where it has none."""
    for one in (operator, getattr(operator, "default", None)):
        schema = getattr(one, "_schema", None)
        if schema is not None:
            return tuple(argument.name for argument in schema.arguments)
    return ()


def is_varlen(operator: Any) -> bool:
    """Whether an operator is that of `torch.nn.attention.varlen`, forward."""
    return operator.__name__.split(".")[0] in VARLEN_NAMES


def varlen_arguments(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of varlen attention that were given, by the names that torch 2.13 has for them.

    Raises:
        UnsupportedVersion: an argument of a name that headscope does not know was given, or q, k, v have other names.
    """
    arguments = {name: x for name, x in named_arguments(operator, args, kwargs).items() if x is not None}
    missing = {"query", "key", "value", "cu_seq_q"} - arguments.keys()
    if missing:
        raise VARLEN.changed(f"without {listed(missing)}")
    unknown = arguments.keys() - VARLEN_KNOWN - VARLEN_HARMLESS
    if unknown:
        raise VARLEN.changed(f"with {listed(unknown)}")
    return {name: x for name, x in arguments.items() if name in VARLEN_KNOWN}


def listed(names: Iterable[str]) -> str:
    """Names in a sentence, sorted."""
    return ", ".join(sorted(names))


def require_overrides(kind: type, names: Iterable[str], use: str) -> None:
    """Check that a class of another library still calls the methods that a subclass of ours replaces.

    Raises:
        UnsupportedVersion: one of them is not there, so that ours would never be called.
    """
    missing = [name for name in names if not callable(getattr(kind, name, None))]
    if missing:
        library = kind.__module__.partition(".")[0]
        raise UnsupportedVersion(
            f"{use}: {kind.__name__} of {library} {version(library)} has no {listed(missing)}, which headscope "
            f"replaces. {advice(library)}"
        )
