"""A call of torch's FlexAttention, as it reaches torch: its block mask as runs, its score_mod as a bias, or as weights.

Source: Dong et al. 2024, Flex Attention (arXiv:2412.05496).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from headscope.attention.masks.runs import Runs, from_dense
from headscope.calls import eager_mode
from headscope.calls.call import Call, both, from_weights
from headscope.calls.lines import ByRows
from headscope.calls.mask_rows import Meaning, Reader, of_rows
from headscope.calls.sites.site import Arguments, Site
from headscope.compat.compiler import compiled_calls
from headscope.compat.flex_attention import (
    OTHER_TENSORS,
    block_mask_parts,
    compilation,
    flex_arguments,
    is_identity,
    is_no_mask,
)
from headscope.compat.torch import other_modes

# Scores at which a score_mod is evaluated: what it adds must be the same at each of them.
PROBES = (0.0, 1.5, -3.0)
ROWS = 128
LARGE = 2**30


NAMES = ("query", "key", "value", "score_mod", "block_mask", "scale")


class FlexAttention(Site):
    """The operator that `flex_attention` becomes; what it returns is `(values, lse, largest scores)`."""

    name = "flex_attention"
    operators = ("flex_attention",)

    def arguments(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """By the names of the operator."""
        return flex_arguments(func, args, kwargs)

    def read(self, reader: Reader, heads: int | None, arguments: Arguments) -> Call:
        """See `call_of`."""
        return call_of(*(arguments[name] for name in NAMES))

    def values(self, output: Any, arguments: Arguments, heads: int | None) -> Tensor:
        """The first of its results."""
        values: Tensor = output[0]
        return values

    def replace(self, output: Any, values: Tensor, arguments: Arguments) -> Any:
        """The other results stay."""
        return (values, *output[1:])

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `run`."""
        return run(func, self.arguments(func, args, kwargs), args, kwargs)


def call_of(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Callable[..., Tensor],
    block_mask: tuple[Any, ...],
    scale: float,
) -> Call:
    """The call of the operator that `flex_attention` becomes; `block_mask` is the mask as a tuple."""
    q, k, v = (x.expand(query.shape[0], *x.shape[1:]) for x in (query, key, value))
    runs = runs_of(block_mask, q, k, blocks=compiled_calls() > 1)
    if is_identity(score_mod):
        return Call(q, k, v, runs, None, scale)
    added = added_by(score_mod, q, k)
    if added is None:
        return from_weights(weights(q, k, score_mod, runs, scale), v)
    return Call(q, k, v, both(runs, added.runs), added.bias, scale, by_offset=added.by_offset)


def runs_of(block_mask: tuple[Any, ...], q: Tensor, k: Tensor, *, blocks: bool) -> Runs | None:
    """The runs of a block mask.

    Compiled kernels see its full blocks, and of the other blocks that it lists what its function allows; without the
    compiler torch uses the function alone (`blocks=False`).
    """
    queries, keys = q.shape[2], k.shape[2]
    count, columns, full_count, full_columns, tall, wide, mask_mod = block_mask_parts(block_mask)
    if is_no_mask(mask_mod) and (not blocks or (tall >= queries and wide >= keys)):
        return None
    b, h = count.shape[:2]
    partly = listed(count, columns)
    wholly = torch.zeros_like(partly) if full_count is None else listed(full_count, full_columns)
    device = q.device
    items, heads, column = (torch.arange(n, device=device) for n in (q.shape[0], q.shape[1], keys))
    items, heads = items[:b], heads[:h]
    parts = []
    for first in range(0, queries, ROWS):
        row = torch.arange(first, min(first + ROWS, queries), device=device)
        seen = mask_mod(items[:, None, None, None], heads[:, None, None], row[:, None], column)
        if blocks:
            block = (slice(None), slice(None), (row // tall)[:, None], (column // wide)[None])
            seen = (seen & partly[block]) | wholly[block]
        parts.append(from_dense(seen.expand(b, h, len(row), keys)))
    most = max(part.start.shape[-1] for part in parts)
    start, stop = (
        torch.cat([torch.nn.functional.pad(part[side], (0, most - part[side].shape[-1])) for part in parts], 2)
        for side in (0, 1)
    )
    return Runs(start, stop)


def listed(count: Tensor, indices: Tensor | None) -> Tensor:
    """Which blocks a row of blocks lists, `(b, h, rows, columns)`."""
    assert indices is not None
    chosen = torch.arange(indices.shape[-1], device=count.device) < count[..., None]
    found = torch.zeros_like(chosen, dtype=torch.int32)
    return found.scatter_add(-1, indices.long(), chosen.int()).bool()


def added_by(score_mod: Callable[..., Tensor], q: Tensor, k: Tensor) -> Meaning | None:
    """What a score_mod adds, asked about some rows of pairs at a time; None when it does something else."""
    item, head, row, column = indices(q, k)

    def changed(rows: slice, probe: float) -> Tensor:
        at = item, head, row[:, :, rows], column
        shape = torch.broadcast_shapes(*(x.shape for x in at))  # type: ignore[no-untyped-call]
        found: Tensor = score_mod(torch.full(shape, probe, device=q.device), *at) - probe
        return found

    def block(rows: slice) -> Tensor:
        return narrowed(changed(rows, PROBES[0]), (0, 1))

    added = ByRows((q.shape[0], q.shape[1], q.shape[2], k.shape[2]), block)
    for rows, one in added.blocks():
        if not all(torch.allclose(changed(rows, p), one, atol=1e-5, rtol=1e-5) for p in PROBES[1:]):
            return None
    meaning = of_rows(added)
    return meaning if meaning.bias is None else meaning._replace(bias=narrowed(meaning.bias, range(4)))


def narrowed(x: Tensor, axes: Iterable[int]) -> Tensor:
    """A tensor with size 1 along those of some axes along which it is the same."""
    for axis in axes:
        one = x.narrow(axis, 0, 1) if x.shape[axis] else x
        if torch.equal(one.expand_as(x), x):
            x = one
    return x


def indices(q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
    """The numbers of items, heads, queries and keys, along their axes."""
    sizes = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    return tuple(
        torch.arange(size, device=q.device).view([-1 if other == axis else 1 for other in range(4)])
        for axis, size in enumerate(sizes)
    )


def weights(q: Tensor, k: Tensor, score_mod: Callable[..., Tensor], runs: Runs | None, scale: float) -> Tensor:
    """The weights themselves, for a score_mod that is no bias."""
    wide = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = score_mod((q.float() @ wide.float().mT) * scale, *indices(q, k))
    if runs is not None:
        scores = scores.masked_fill(~runs.block(slice(0, q.shape[2]), 0, k.shape[2]), -torch.inf)
    return scores.softmax(-1).nan_to_num(0.0)


def run(func: Callable[..., Any], arguments: Arguments, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator as `flex_attention` itself runs it outside of a compiled region: traced, then eager.

    That writes the scores out and looks at the function of a block mask alone. A call from a compiled region gets a
    fused kernel where the scores would be larger than `LARGE`, or the blocks of the mask say more than its function.
    """

    def operator(*inputs: Any, **named: Any) -> Any:
        return func(*inputs, **named)

    # Tensors that the functions use are the compiler's own to find; and another mode of this thread is to see the
    # operator, too. In an eager call torch's own compilation is one compiled call around it.
    eager_mode.refresh()
    settings = compilation()
    if any(arguments.get(name) for name in OTHER_TENSORS) or other_modes() or settings is None:
        return func(*args, **kwargs)
    fused = compiled_calls() > 1 and needs_kernel(arguments["query"], arguments["key"], arguments["block_mask"])
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("default"))
        backend = "inductor" if fused else stack.enter_context(settings)
        return torch.compile(operator, backend=backend, fullgraph=True)(*args[:7], **kwargs)


def needs_kernel(q: Tensor, k: Tensor, block_mask: tuple[Any, ...]) -> bool:
    """Whether only a fused kernel does what the compiled call does."""
    if q.shape[:3].numel() * k.shape[2] * 4 > LARGE:
        return True
    mine, theirs = (runs_of(block_mask, q, k, blocks=blocks) for blocks in (False, True))
    if mine is None or theirs is None:
        return mine is not theirs
    rows = slice(0, q.shape[2])
    return not torch.equal(*(runs.block(rows, 0, k.shape[2]) for runs in (mine, theirs)))
