"""Values together with the weights they were made with, for callers that need every weight."""

from __future__ import annotations

import itertools
import math
from contextlib import nullcontext

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from headscope.attention.api import requested
from headscope.attention.bias import Bias
from headscope.attention.known import jit_tracing, known, sizes_as_numbers
from headscope.attention.masks.mask import Mask
from headscope.attention.precision import autocast_off
from headscope.attention.request import Request
from headscope.shapes import acc_dtype


def attend_weights(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    v: Float[Tensor, "b g k e"],
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    dropout: float = 0.0,
    average: bool = False,
) -> tuple[Float[Tensor, "b h q e"], Float[Tensor, "b heads q k"]]:
    """`attend`, and the weights that the values were made with: after dropout, where there is any.

    Weights are O(queries x keys) numbers for each head; `attend` makes the same values without them. Differentiable in
    both results.

    Args:
        mask, bias, dropout: as in `attend`.
        average: whether to give the mean of the heads' weights: h times less memory where nothing is differentiated.

    Shapes:
        as `attend`; weights `(b, h, q, k)`, or `(b, 1, q, k)` averaged, float32 (float64 for float64). A query that may
        see nothing has weights and values of 0.

    Raises:
        ShapeError, MaskError: as `attend`.

    Source: Vaswani et al. 2017, equation 1.

    Example:
        >>> x = torch.eye(3)[None, None]
        >>> values, weights = attend_weights(x, x, x)
        >>> [round(w, 3) for w in weights[0, 0, 0].tolist()]
        [0.471, 0.264, 0.264]
    """
    # As in `attend`: a TorchFunctionMode sees one call.
    if has_torch_function((q, k, v)):
        result: tuple[Tensor, Tensor] = handle_torch_function(
            attend_weights, (q, k, v), q, k, v, mask=mask, bias=bias, dropout=dropout, average=average
        )
        return result
    with sizes_as_numbers() if jit_tracing() else nullcontext():
        request = requested(q, k, v, mask, bias, None, None, None, dropout, where="attend_weights")
        with autocast_off(request.q):
            return in_pieces(request, average) if pays_in_pieces(request) else at_once(request, average)


def at_once(request: Request, average: bool) -> tuple[Tensor, Tensor]:
    """Values and weights of a request, by one product, one softmax and one product."""
    q, k, v = request.q, request.k, request.v
    b, h, queries, d = q.shape
    groups, keys, wide = k.shape[1], k.shape[2], acc_dtype(q.dtype)
    grouped = (q.to(wide) * request.scale).reshape(b, groups, h // groups * queries, d)
    scores = (grouped @ k.to(wide).transpose(-2, -1)).reshape(b, h, queries, keys)
    weights = normalised(scores, *additive(request, wide), request.dropout)
    merged = weights.reshape(b, groups, h // groups * queries, keys)
    values = (merged @ v.to(wide)).reshape(b, h, queries, v.shape[3]).to(v.dtype)
    return values, weights.mean(1, keepdim=True) if average else weights


# Weights that a core has room for beside its operands: 1 MB.
PIECE = 2**18


def pays_in_pieces(request: Request) -> bool:
    """Whether a call has more weights than caches hold, and nobody needs all of them for a derivative."""
    q = request.q
    if q.device.type != "cpu" or request.trains or not known(q):
        return False
    return q.shape[0] * q.shape[1] * q.shape[2] * request.k.shape[2] > PIECE * torch.get_num_threads()


def in_pieces(request: Request, average: bool) -> tuple[Tensor, Tensor]:
    """As `at_once`, a few heads or rows of one batch item after the other: scores and weights stay in the caches."""
    q, k, v = request.q, request.k, request.v
    (b, h, queries, _), (groups, keys, size), wide = q.shape, v.shape[1:], acc_dtype(q.dtype)
    added, empty = additive(request, wide)
    values = q.new_empty(b, queries, h, size).transpose(1, 2)
    weights = q.new_zeros(b, 1 if average else h, queries, keys, dtype=wide)
    room = PIECE * torch.get_num_threads() // keys
    step, length = max(1, room // queries), max(1, min(queries, room))
    for item in range(b):
        k_all, v_all = (x[item].to(wide) for x in (k, v))
        if groups != h:
            k_all, v_all = (x.repeat_interleave(h // groups, 0) for x in (k_all, v_all))
        for first, start in itertools.product(range(0, h, step), range(0, queries, length)):
            heads, rows = slice(first, first + step), slice(start, start + length)
            scores = (q[item, heads, rows].to(wide) * request.scale) @ k_all[heads].transpose(-2, -1)
            hidden, unseen = (part if part is None else cut(part, item, heads, rows) for part in (added, empty))
            found = normalised(scores, hidden, unseen, request.dropout)
            values[item, heads, rows] = (found @ v_all[heads]).to(v.dtype)
            if average:
                weights[item, :, rows] += found.sum(0) if len(found) > 1 else found[0]
            else:
                weights[item, heads, rows] = found
    return values, weights.div_(h) if average else weights


def cut(part: Shaped[Tensor, "b h q _"], item: int, heads: slice, rows: slice) -> Shaped[Tensor, "some rows _"]:
    """What concerns one batch item, some heads and some rows, of a tensor that all may share."""
    own = part[item if part.shape[0] > 1 else 0]
    own = own[heads] if len(own) > 1 else own
    return own[:, rows] if own.shape[1] > 1 else own


def normalised(scores: Tensor, added: Tensor | None, empty: Tensor | None, dropout: float) -> Tensor:
    """The weights of scores, which are not needed any more; `added` and `empty` as `additive` gives them."""
    if added is not None:
        # Where a transform gave one of the two an axis that the other lacks, it cannot be written into.
        scores = scores.add_(added) if known(scores, added) else scores + added
    weights = scores.softmax(-1)
    if empty is not None:
        weights = weights.masked_fill(empty, 0.0)
    return torch.nn.functional.dropout(weights, dropout) if dropout else weights


def additive(request: Request, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """What is added to the scores, `(b|1, h|1, q, k)`, and which rows see nothing, `(b|1, h|1, q, 1)`; None: no row.

    Such a row is left as it is and its weights are set to 0 afterwards: minus infinity in all of it would give NaN.
    """
    queries, keys = request.q.shape[2], request.k.shape[2]
    added = None if request.bias is None else request.bias.whole(queries, keys, request.q.device, dtype)
    allowed = request.allowed()
    if allowed is None:
        return added, None
    empty = ~allowed.any(-1, keepdim=True)
    none_is = known(empty) and not bool(empty.any())
    hidden = ~allowed if none_is else ~(allowed | empty)
    if added is None:
        added = torch.zeros((), dtype=dtype, device=allowed.device)
    return torch.where(hidden, -math.inf, added), None if none_is else empty
