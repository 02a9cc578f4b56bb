"""Statistics of the weights of plain `(b, h, q, d)` tensors, exact and in O(N) memory.

Each picks the cheapest way: an attention call where it is one (`project`, `entropy`, `received` through the flipped
call), else a pass over blocks of scores. With gradients where the definition has them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention.api import attend, attend_lse
from headscope.attention.bias import Bias
from headscope.attention.masks.mask import Mask
from headscope.attention.request import Request
from headscope.errors import LookError
from headscope.look.kernels import by_rows
from headscope.look.kernels.diagonals import band
from headscope.look.kernels.stream import Ask, stream
from headscope.look.kernels.tiles import wide
from headscope.look.top import Top
from headscope.shapes import shape


def entropy(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " h"] | None = None,
) -> Float[Tensor, "b h q"]:
    """How spread every query's weights are: `-Σ_j p_ij log p_ij`, in nats; 0 for a query that may see nothing.

    Differentiable, in O(N) memory: as a term of a loss it keeps heads from collapsing, or makes them decide.

    Source: Clark et al. 2019. Without bias and softcap it is an attention call with the keys as values, since
    `Σ_j p_ij s_ij = scale · q_i · (P K)_i`.

    Example:
        >>> import torch, headscope as hs
        >>> hs.look.entropy(torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 4, 8)).exp().flatten().tolist()
        [4.0..., 4.0...]
    """
    request = Request(q, k, k, mask, bias, scale, softcap, sinks)
    if bias is None and softcap is None:
        wide_q, wide_k = wide(q), wide(k)
        values, lse = attend_lse(wide_q, wide_k, wide_k, mask=mask, scale=scale, sinks=sinks)
        seen = ~lse.isneginf()
        lse = lse.masked_fill(~seen, 0.0)
        share = seen.to(lse.dtype) if sinks is None else 1.0 - torch.exp(sinks.to(lse.dtype)[:, None] - lse)
        return share * lse - request.scale * (wide_q * values).sum(-1)
    if request.trains:
        return by_rows.by_rows(request, by_rows.entropy)
    return given(stream(request, Ask(entropy=True)).entropy)


def concentration(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " h"] | None = None,
) -> Float[Tensor, "b h q"]:
    """`Σ_j p_ij²` of every query: 1 when one key has all the weight; its inverse is the effective number of keys.

    Differentiable, in O(N) memory.

    Source: the participation ratio.

    Example:
        >>> import torch, headscope as hs
        >>> hs.look.concentration(torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 4, 8)).flatten().tolist()
        [0.25, 0.25]
    """
    request = Request(q, k, k, mask, bias, scale, softcap, sinks)
    if request.trains:
        return by_rows.by_rows(request, by_rows.concentration)
    return given(stream(request, Ask(concentration=True)).concentration)


def received(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " h"] | None = None,
) -> Float[Tensor, "b h k"]:
    """How much weight every key gets from all queries together, for each query head: `Σ_i p_ij`.

    With grouped keys see `received_by_group` for the sum over the query heads that share a key. Differentiable.

    Source: Xiao et al. 2023. With gradients and without a mask it is the flipped call: an lse over the queries, of the
    scores minus the lse of each query.

    Example:
        >>> import torch, headscope as hs
        >>> hs.look.received(torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 4, 8)).flatten().tolist()
        [0.5, 0.5, 0.5, 0.5]
    """
    request = Request(q, k, k, mask, bias, scale, softcap, sinks)
    if not request.trains:
        return given(stream(request, Ask(received=True)).received)
    if mask is None and bias is None and softcap is None:
        wide_q, wide_k = wide(q), wide(k)
        lse = attend_lse(wide_q, wide_k, wide_k, scale=scale, sinks=sinks)[1]
        # One more feature carries the bias of each query, so that any path can run it.
        asked = torch.cat([wide_q * request.scale, -lse[..., None]], dim=-1)
        keys = pad(wide_k, (0, 1), value=1.0).repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        return attend_lse(keys, asked, asked, scale=1.0)[1].exp()
    return by_rows.by_rows(request, by_rows.received, total=True)


def received_by_group(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " h"] | None = None,
) -> Float[Tensor, "b g k"]:
    """How much weight every key gets from all queries of all the query heads that share it. Differentiable.

    What a key/value cache that drops keys wants to know: a key is held once for its whole group.

    Source: the sum of `received` over each group of heads (Ainslie et al. 2023).

    Example:
        >>> import torch, headscope as hs
        >>> hs.look.received_by_group(torch.zeros(1, 2, 2, 8), torch.zeros(1, 1, 4, 8)).flatten().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    per_head = received(q, k, mask=mask, bias=bias, scale=scale, softcap=softcap, sinks=sinks)
    return per_head.reshape(len(k), k.shape[1], -1, k.shape[2]).sum(2)


def project(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    W: Float[Tensor, "*heads rows e"],
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " h"] | None = None,
) -> Float[Tensor, "b h q e"]:
    """`P W`: any numbers that belong to the keys, averaged with each query's weights. Differentiable.

    Positions in `W` give the mean attended position, indicators of classes the mass on each class.

    Shapes:
        W `(k, e)`, or `(b, g, k, e)` → `(b, h, q, e)`.

    Raises:
        LookError: W has not one row for each key.

    Source: it is an attention call with W in the place of the values.

    Example:
        >>> import torch, headscope as hs
        >>> W = torch.arange(4.0)[:, None]  # where every key stands
        >>> hs.look.project(torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 4, 8), W).flatten().tolist()
        [1.5, 1.5]
    """
    if W.ndim not in (2, 4) or W.shape[-2] != k.shape[2]:
        raise LookError(f"project: W is {shape(W)} and there are {k.shape[2]} keys; give one row of W for each key.")
    wide_q, wide_k = wide(q), wide(k)
    values = W.to(wide_q).expand(*k.shape[:2], *W.shape[-2:])
    return attend(wide_q, wide_k, values, mask=mask, bias=bias, scale=scale, softcap=softcap, sinks=sinks)


def offsets(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    n: int,
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " h"] | None = None,
) -> Float[Tensor, "b h offsets"]:
    """The mean weight at each offset from the own position, `-n … n`: number `n + δ` is the mean over i of `p_{i,i+δ}`.

    Means are over the queries that have a key at the offset. Queries and keys are aligned at their ends.
    Differentiable.

    Shapes:
        returns `(b, h, 2n + 1)`.

    Raises:
        LookError: n is negative, or there is one query only: a step of decoding has no profile.

    Source: Clark et al. 2019; Voita et al. 2019.

    Example:
        >>> import torch, headscope as hs
        >>> eye = 40 * torch.eye(4)[None, None]
        >>> hs.look.offsets(eye, eye, 1).flatten().tolist()
        [0.0, 1.0, 0.0]
    """
    request = Request(q, k, k, mask, bias, scale, softcap, sinks)
    if n < 0:
        raise LookError(f"offsets: n={n}; give the largest distance to look at, 0 or more.")
    if q.shape[2] < 2:
        raise LookError(
            f"offsets: {q.shape[2]} query has no profile over offsets; look at head.row(0), or record more queries."
        )
    return band(request, n)


def top(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    n: int,
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " h"] | None = None,
) -> Top:
    """The `n` largest weights of every query and their keys; keys that a query may not see have weight 0.

    Shapes:
        weights and keys, each `(b, h, q, n)`.

    Raises:
        LookError: n is below 1 or above the number of keys.

    Example:
        >>> import torch, headscope as hs
        >>> eye = 40 * torch.eye(4)[None, None]
        >>> hs.look.top(eye, eye, 1).keys.flatten().tolist()
        [0, 1, 2, 3]
    """
    if not 1 <= n <= k.shape[2]:
        raise LookError(f"top: n={n}; there are {k.shape[2]} keys, so give 1 to {k.shape[2]}.")
    seen = stream(Request(q, k, k, mask, bias, scale, softcap, sinks), Ask(top=n))
    assert seen.top_keys is not None
    return Top(given(seen.top_weights), seen.top_keys)


def heatmap(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b g k d"],
    size: int = 256,
    how: str = "mean",
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " h"] | None = None,
) -> Float[Tensor, "b h rows columns"]:
    """The weights as a picture of at most `size` x `size` cells: the mean or the largest weight of each cell.

    A cell has `ceil(q / size)` queries and `ceil(k / size)` keys; the last row and column may have fewer. The largest
    weights keep stripes of one pixel visible that a mean hides.

    Raises:
        LookError: size is below 1, or how is neither "mean" nor "max".

    Example:
        >>> import torch, headscope as hs
        >>> hs.look.heatmap(torch.zeros(1, 1, 6, 8), torch.zeros(1, 1, 4, 8), 2).shape
        torch.Size([1, 1, 2, 2])
    """
    if size < 1:
        raise LookError(f"heatmap: size={size}; give the most cells on a side, 1 or more.")
    if how not in ("mean", "max"):
        raise LookError(f'heatmap: how={how!r}; give "mean" or "max".')
    cells = cells_for(q.shape[2], k.shape[2], size)
    ask = Ask(mean_map=how == "mean", max_map=how == "max", cells=cells)
    seen = stream(Request(q, k, k, mask, bias, scale, softcap, sinks), ask)
    return given(seen.mean_map if how == "mean" else seen.max_map)


def cells_for(queries: int, keys: int, size: int) -> tuple[int, int]:
    """How many queries and keys a cell of a map has, so that there are at most `size` cells on each side."""
    return max(1, -(-queries // size)), max(1, -(-keys // size))


def given(found: Tensor | None) -> Tensor:
    """What was asked for is there."""
    assert found is not None
    return found
