"""Full float64 weights, and attention calls of every sort for the looks to be compared on."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

import headscope as hs
from headscope.attention.paths.formula import normalise, scores

B, H, Q, K, D = 2, 6, 37, 53, 11


def full(q: Tensor, k: Tensor, *, mask=None, bias=None, scale=None, softcap=None, sinks=None) -> tuple[Tensor, Tensor]:
    """All weights and the lse, in float64."""
    queries, keys = q.shape[2], k.shape[2]
    allowed = None if mask is None else mask.to_dense(queries, keys)
    block = None if bias is None else bias.block(slice(0, queries), 0, keys, queries, keys).double()
    s = scores(q.double(), k.double(), scale=scale or q.shape[3] ** -0.5, softcap=softcap, bias=block, allowed=allowed)
    return normalise(s, None if sinks is None else sinks.double())


def masks(queries: int = Q, keys: int = K) -> dict[str, hs.Mask | None]:
    """Masks of every sort, with rows that see nothing."""
    holes = torch.rand(B, 1, queries, keys, generator=torch.Generator().manual_seed(1)) < 0.4
    holes[0, 0, 3] = False
    holes[1, 0, -1] = False
    return {
        "none": None,
        "causal": hs.causal(),
        "window": hs.window(5, 2),
        "padding": hs.padding([0, min(31, keys)]),
        "documents": hs.causal() & hs.documents([queries - 7, 7], [keys - 7, 7]),
        "holes": hs.dense(holes),
        "both": hs.causal() & hs.padding([keys - 2, keys // 2]),
    }


def extras(queries: int = Q, keys: int = K) -> dict[str, dict[str, object]]:
    """What else changes scores or weights."""
    g = torch.Generator().manual_seed(2)
    return {
        "plain": {},
        "softcap": {"softcap": 3.0},
        "bias": {"bias": hs.dense_bias(torch.randn(1, H, queries, keys, generator=g))},
        "alibi": {"bias": hs.alibi(H)},
        "sinks": {"sinks": torch.randn(H, generator=g)},
        "sharp": {"scale": 4.0},
    }


def inputs(groups: int = H, *, dtype=torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Queries and keys."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, H, Q, D, generator=g).to(dtype), torch.randn(B, groups, K, D, generator=g).to(dtype)


calls = st.tuples(st.sampled_from([1, 2, 3, 6]), st.sampled_from(sorted(masks())), st.sampled_from(sorted(extras())))


def profile(weights: Tensor, mask: hs.Mask | None, n: int) -> Tensor:
    """The mean weight at each offset within each sequence, counted one by one, `(b, h, 2n + 1)`."""
    b, _, queries, keys = weights.shape
    allowed = torch.ones(1, 1, queries, keys).bool() if mask is None else mask.to_dense(queries, keys)
    means = []
    for item, some in zip(weights, allowed.any(1).expand(b, -1, -1), strict=True):
        order = neighbourhoods(some.tolist())
        at = []
        for offset in range(-n, n + 1):
            found = [
                item[:, i, line[place + offset]]
                for i, (line, place) in order.items()
                if 0 <= place + offset < len(line)
            ]
            at.append(torch.stack(found).mean(0) if found else torch.zeros(len(item)).double())
        means.append(torch.stack(at, -1))
    return torch.stack(means)


def neighbourhoods(allowed: list[list[bool]]) -> dict[int, tuple[list[int], int]]:
    """For each query that is not padding the keys of its sequence, and where its own key is among them."""
    shift = len(allowed[0]) - len(allowed)
    rows = [i for i, row in enumerate(allowed) if any(row) and any(other[i + shift] for other in allowed)]
    links = {i: {j for j, sees in enumerate(allowed[i]) if sees} | {i + shift} for i in rows}
    groups: list[set[int]] = []
    for seen in links.values():
        touched = [group for group in groups if group & seen]
        groups = [group for group in groups if not group & seen] + [seen.union(*touched)]
    found = {}
    for i in rows:
        line = sorted(next(group for group in groups if i + shift in group))
        found[i] = line, line.index(i + shift)
    return found
