"""Statistics of the weights of plain `(b, h, q, d)` tensors, exact and in O(N) memory.

Each picks the cheapest way: an attention call where it is one (`project`, `entropy`, `received` through the flipped
call), else a pass over blocks of scores. With gradients where the definition has them.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from headscope.attention.bias import Bias
from headscope.attention.masks.mask import Mask
from headscope.look import statistics
from headscope.look.scoring import Scoring
from headscope.look.top import Top


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
    return statistics.entropy(Scoring(mask, bias, scale, softcap, sinks).request(q, k, where="look.entropy"))


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
    return statistics.concentration(
        Scoring(mask, bias, scale, softcap, sinks).request(q, k, where="look.concentration")
    )


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

    Every query counts that the mask lets see something; `head.received()` knows which queries are padding, too.
    With grouped keys see `received_by_group` for the sum over the query heads that share a key. Differentiable.

    Source: Xiao et al. 2023. With gradients and without a mask it is the flipped call: an lse over the queries, of the
    scores minus the lse of each query.

    Example:
        >>> import torch, headscope as hs
        >>> hs.look.received(torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 4, 8)).flatten().tolist()
        [0.5, 0.5, 0.5, 0.5]
    """
    return statistics.received(Scoring(mask, bias, scale, softcap, sinks).request(q, k, where="look.received"))


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
    return statistics.project(Scoring(mask, bias, scale, softcap, sinks).request(q, k, where="look.project"), W)


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

    Means are over the queries that have a key at the offset. Queries and keys are aligned at their ends. What the mask
    shows to be padding, or another document, is neither a query nor a neighbour: the next position is the next one of
    the same sequence. Differentiable.

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
    return statistics.offsets(Scoring(mask, bias, scale, softcap, sinks).request(q, k, where="look.offsets"), n)


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
    return statistics.top(Scoring(mask, bias, scale, softcap, sinks).request(q, k, where="look.top"), n)


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
    return statistics.heatmap(Scoring(mask, bias, scale, softcap, sinks).request(q, k, where="look.heatmap"), size, how)
