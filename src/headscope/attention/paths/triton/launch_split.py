"""The launches of decoding: how many parts the keys are split into, and their merge."""

from __future__ import annotations

import torch
from torch import Tensor

from headscope.attention.paths.triton.launch import Options, alignment, constants, filled, mask_strides, strides
from headscope.attention.paths.triton.sizes import padded, size_of

# Rows of a block: the queries of all heads that share a key.
MOST_ROWS = 64
# Keys that a part has at least, so that its own work outweighs its merge.
LEAST_KEYS = 256
# Parts of a query that its merge looks at together.
SEARCH = 64


def few_queries(q: Tensor, k: Tensor, options: Options) -> bool:
    """Whether a call is a step of decoding: its queries, over the heads of a group, fit into one block."""
    return q.shape[1] // k.shape[1] * q.shape[2] <= MOST_ROWS and not options.dropout


def parts(q: Tensor, k: Tensor, options: Options) -> int:
    """Into how many parts the keys are split: enough for two programs on every multiprocessor."""
    planes = k.shape[0] * k.shape[1]
    return max(1, min(2 * options.device.processors // planes, -(-k.shape[2] // LEAST_KEYS)))


def forward(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, sinks: Tensor | None, options: Options
) -> tuple[Tensor, Tensor]:
    """Values and lse of a few queries.

    Shapes:
        values `(b, h, q, e)`, laid out as in `launch.forward`; lse `(b, h, q)` in float32.
    """
    from headscope.attention.paths.triton import split_kernel

    b, h, queries, d = q.shape
    keys, e = v.shape[2:]
    share, count = h // k.shape[1], parts(q, k, options)
    size = size_of("split", d, e, q.dtype, options.device, options.many)
    size = size._replace(queries=max(16, 1 << (share * queries - 1).bit_length()))
    # Whole blocks of keys in every part but the last.
    chunk = -(-keys // (count * size.keys)) * size.keys
    count = -(-keys // chunk)
    some = torch.empty(b, h, queries, count, e, dtype=torch.float32, device=q.device)
    some_lse = torch.empty(b, h, queries, count, dtype=torch.float32, device=q.device)
    align = alignment(q, k, v)
    known = constants(q, v, size, align, options)
    del known["DROPOUT"]
    split_kernel.split[(count * b * k.shape[1],)](
        q, k, v, some, some_lse, options.runs.start, options.runs.stop, filled(bias, q), *strides(align, q, k, v),
        *mask_strides(options.runs, options.runs.start)[:3], h, share, queries, keys, options.runs.start.shape[3],
        chunk, count, options.scale, options.softcap or 0.0, **known,
    )  # fmt: skip
    values = q.new_empty(b, queries, h, e).transpose(1, 2)
    lse = torch.empty(b, h, queries, dtype=torch.float32, device=q.device)
    split_kernel.merge[(b * h * queries,)](
        some, some_lse, values, lse, filled(sinks, q), *values.stride()[:3], count, h, queries, E=e, WIDTH_E=padded(e),
        SEARCH=SEARCH, SINKS=sinks is not None,
    )  # fmt: skip
    return values, lse
