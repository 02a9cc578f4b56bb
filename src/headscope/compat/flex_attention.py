"""What stands behind `torch.nn.attention.flex_attention`: its operator, its block mask as a tuple, its defaults."""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headscope.compat.arguments import listed
from headscope.compat.names import Private

HOME = "torch.nn.attention.flex_attention"
OPERATOR = Private(
    "torch.ops:higher_order.flex_attention",
    "records calls of flex_attention",
    "Its calls are not recorded; those of other attention functions are.",
)
IDENTITY = Private(
    f"{HOME}:_identity",
    "knows that no score_mod was given",
    "The function that torch takes for it is tried on all scores, which is slower and as exact.",
)
NO_MASK = Private(
    f"{HOME}:noop_mask",
    "knows that no block mask was given",
    "The function that torch takes for it is asked about all pairs, which is slower and as exact.",
)
BLOCK_MASK = Private(
    f"{HOME}:BlockMask.as_tuple",
    "reads the block mask of a call",
    "Calls of flex_attention cannot be recorded; those of other attention functions can.",
)
COMPILATION = Private(
    "torch._higher_order_ops.utils:setup_compilation_env",
    "runs flex_attention inside of a block as torch runs it outside of one",
    "It runs as its eager operator, which writes the scores out.",
)

# What is read of a call, in the names of torch's operator; and what must be among them.
OTHER_TENSORS = ("score_mod_other_buffers", "mask_mod_other_buffers")
NEEDED = {"query", "key", "value", "score_mod", "block_mask", "scale"}


class BlockMaskParts(NamedTuple):
    """What a block mask says, as its operator gets it.

    Shapes:
        partly_count, wholly_count `(b|1, h|1, rows)`; partly_columns, wholly_columns `(b|1, h|1, rows, columns)`.
    """

    partly_count: Tensor
    partly_columns: Tensor
    wholly_count: Tensor | None
    wholly_columns: Tensor | None
    rows: int
    columns: int
    mask_mod: Any


def flex_arguments(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the operator that `flex_attention` becomes, by its own names.

    Raises:
        UnsupportedVersion: the operator of this torch takes others.
    """
    kind: Any = type(operator)
    names = operator_arguments(kind)
    if not {*names} >= NEEDED or len(args) > len(names):
        raise OPERATOR.changed(f"its arguments are {listed(names) or 'not declared'}")
    return dict(zip(names, args, strict=False)) | kwargs


@functools.cache
def operator_arguments(kind: Any) -> tuple[str, ...]:
    """The names of the arguments of a higher-order operator, in their order."""
    parameters = list(inspect.signature(kind.__call__).parameters.values())[1:]
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(one.name for one in parameters if one.kind in named)


def is_identity(score_mod: Any) -> bool:
    """Whether a score_mod is what torch takes where none was given."""
    identity = IDENTITY.find()
    return identity is not None and score_mod is identity


def is_no_mask(mask_mod: Any) -> bool:
    """Whether the function of a block mask is what torch takes where none was given."""
    nothing = NO_MASK.find()
    return nothing is not None and mask_mod is nothing


def block_mask_parts(parts: tuple[Any, ...]) -> BlockMaskParts:
    """A block mask as `BlockMask.as_tuple` writes it, taken apart.

    Raises:
        UnsupportedVersion: this torch writes none, or without the parts that are read here.
    """
    return BlockMaskParts(*(parts[at] for at in places()))


@functools.cache
def places() -> tuple[int, ...]:
    """Where each of the parts stands in the tuple: looked for in that of a mask whose parts are all different.

    Raises:
        UnsupportedVersion: as `block_mask_parts`.
    """
    BLOCK_MASK.get()
    from torch.nn.attention.flex_attention import BlockMask

    def mask_mod(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return q >= k

    # One row of blocks of 128 queries x 256 keys: the first of its two blocks is partly seen, the second wholly.
    numbers: dict[str, Any] = {"dtype": torch.int32, "device": "cpu"}
    count, columns = torch.ones(1, 1, 1, **numbers), torch.tensor([[[[0, 1]]]], **numbers)
    sizes: dict[str, Any] = {"BLOCK_SIZE": (128, 256), "seq_lengths": (127, 511)}
    sample = BlockMask.from_kv_blocks(count, columns, count.clone(), columns.flip(-1), mask_mod=mask_mod, **sizes)
    wanted = (
        sample.kv_num_blocks,
        sample.kv_indices,
        sample.full_kv_num_blocks,
        sample.full_kv_indices,
        *sample.BLOCK_SIZE,
        sample.mask_mod,
    )
    written = sample.as_tuple()
    found = []
    for one in wanted:
        at = [i for i, part in enumerate(written) if part is one or (type(part) is type(one) is int and part == one)]
        if len(at) != 1:
            raise BLOCK_MASK.changed("it leaves out what a block mask says")
        found += at
    return tuple(found)


def compilation() -> contextlib.AbstractContextManager[Any] | None:
    """The settings, and as its value the backend, with which torch traces `flex_attention` where nothing is compiled.

    None in a version that has them elsewhere.
    """
    settings = COMPILATION.find()
    return None if settings is None else settings()
