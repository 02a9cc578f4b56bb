"""Empty batches and empty sequences, forward and backward, through every layer."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import headscope as hs
from headscope.nn import (
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    GatedFeedForward,
    LearnedPositions,
    MultiheadAttention,
    PreNorm,
    Rotary,
    SinusoidalPositions,
)
from headscope.nn.recipes import gpt2, llama, paper


def layers() -> dict[str, Callable[[], nn.Module]]:
    """Every kind of layer between vectors of width 12."""

    def around(part: nn.Module) -> PreNorm:
        return PreNorm(part, nn.LayerNorm(12))

    attention = {
        "plain": {},
        "sinks": {"sinks": True},
        "grouped": {"num_kv_heads": 1},
        "rotary": {"rotary": Rotary(4)},
        "softcap": {"softcap": 2.0},
        "normed": {"qk_norm": nn.RMSNorm},
        "dropout": {"dropout": 0.5, "sinks": True},
    }
    made: dict[str, Callable[[], nn.Module]] = {
        name: (lambda options=options: MultiheadAttention(12, 3, **options)) for name, options in attention.items()
    }
    return made | {
        "feed-forward": lambda: FeedForward(12, 5),
        "gated": lambda: GatedFeedForward(12, 5),
        "encoder layer": lambda: EncoderLayer(MultiheadAttention(12, 3, sinks=True), FeedForward(12, 5), around),
        "decoder layer": lambda: DecoderLayer(MultiheadAttention(12, 3), None, FeedForward(12, 5), around),
    }


@pytest.mark.parametrize("kind", layers())
@pytest.mark.parametrize("sizes", [(0, 5), (3, 0), (0, 0)])
@pytest.mark.parametrize("mask", [None, hs.causal(), hs.window(2)])
def test_layers(kind: str, sizes: tuple[int, int], mask: object) -> None:
    layer = layers()[kind]()
    x = torch.randn(*sizes, 12, requires_grad=True)
    y = layer(x) if isinstance(layer, FeedForward) else layer(x, mask=mask)
    assert y.shape == x.shape
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert all(p.grad is None or not p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(4, 0), (0, 4), (0, 0)])
@pytest.mark.parametrize("batch", [0, 2])
def test_an_empty_memory(batch: int, queries: int, keys: int, sinks: bool) -> None:
    layer = MultiheadAttention(12, 3, kv_dim=7, sinks=sinks)
    nn.init.ones_(layer.output.bias)
    x, memory = torch.randn(batch, queries, 12, requires_grad=True), torch.randn(batch, keys, 7, requires_grad=True)
    y = layer(x, memory)
    assert torch.equal(y, torch.ones(batch, queries, 12) if not keys else y)
    y.sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("name", ["paper", "gpt2", "llama"])
@pytest.mark.parametrize("sizes", [(0, 5), (2, 0)])
def test_models(name: str, sizes: tuple[int, int]) -> None:
    model = {
        "paper": lambda: paper(11, embed_dim=12, num_heads=3, layers=1, hidden_dim=7),
        "gpt2": lambda: gpt2(11, embed_dim=12, num_heads=3, layers=1),
        "llama": lambda: llama(11, embed_dim=12, num_heads=3, num_kv_heads=1, layers=1, hidden_dim=7),
    }[name]()
    ids = torch.zeros(*sizes, dtype=torch.long)
    source = {"source": torch.zeros(sizes[0], 4, dtype=torch.long)} if name == "paper" else {}
    logits = model(target=ids, **source)
    assert logits.shape == (*sizes, 11)
    logits.sum().backward()


@pytest.mark.parametrize("table", [LearnedPositions(9, 4), SinusoidalPositions(9, 4)])
def test_tables(table: nn.Module) -> None:
    assert table(0, 0).shape == (0, 4)
    assert table(torch.zeros(0, dtype=torch.long), 3).shape == (0, 3, 4)
