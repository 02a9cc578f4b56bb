"""Recordings made of random numbers, with everything that a view must be able to show."""

import torch

from headscope import Axis, causal, padding
from headscope.attention.bias import Bias
from headscope.recording.recording import Layer, Recording

WORDS = ["[CLS]", "the", "animal", "was", "too", "tired", ".", "[SEP]"]
MALICIOUS = "</script><img src=x onerror=\"document.title='broken'\">"


def words(count: int, special: bool = True) -> Axis:
    """Tokens of which the first and the last are special."""
    texts = [WORDS[i % 6 + 1] if 0 < i < count - 1 else WORDS[-bool(i)] for i in range(count)]
    return Axis.tokens(texts, special=[special and i in (0, count - 1) for i in range(count)])


def layer(
    b: int = 1,
    h: int = 3,
    g: int = 3,
    q: int = 11,
    k: int = 11,
    d: int = 7,
    *,
    seed: int = 0,
    size: float = 1.5,
    mask=None,
    bias: Bias | None = None,
    queries: Axis | None = None,
    keys: Axis | None = None,
    kind: str = "self",
    **options,
) -> Layer:
    """A layer of random q and k."""
    random = torch.Generator().manual_seed(seed)
    queries, keys = queries or words(q), keys or words(k)
    return Layer(
        "encoder.layer",
        kind,
        torch.randn(b, h, q, d, generator=random) * size,
        torch.randn(b, g, k, d, generator=random) * size,
        None,
        None if mask is None else mask.runs(q, k, "cpu"),
        d**-0.5,
        bias=None if bias is None else bias.block(slice(0, q), 0, k, q, k),
        queries=[queries] * b,
        keys=[keys] * b,
        **options,
    )


def recording(layers: int = 2, **options) -> Recording:
    """Layers of the same sizes, each with other numbers."""
    return Recording([layer(seed=seed, **options) for seed in range(layers)], "random-model")


def empty_rows(b: int, n: int):
    """Causal, and padded so that the last queries of each item see nothing."""
    lengths = [n - 2 - item for item in range(b)]
    return causal() & padding(lengths, lengths)
