"""Small models of every sort that attention calls come from, each with its own way to merge heads."""

from __future__ import annotations

import torch
from torch import nn

import headscope as hs

B, N, M, H = 2, 5, 12, 3


class Plain(nn.Module):
    """Attention over a projection, by a function that is given to it; one layer after the other."""

    class Layer(nn.Module):
        """One layer."""

        def __init__(self, function) -> None:
            super().__init__()
            self.num_heads, self.function = H, function
            self.inside, self.outside = nn.Linear(M, 3 * M), nn.Linear(M, M)

        def forward(self, x):
            q, k, v = self.inside(x).unflatten(-1, (3, H, -1)).permute(2, 0, 3, 1, 4)
            return x + self.outside(self.function(q, k, v).transpose(1, 2).flatten(2))

    def __init__(self, function, layers: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self.Layer(function) for _ in range(layers))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Mha(nn.Module):
    """torch's own layer, with its weights or without."""

    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.need_weights = need_weights
        self.layers = nn.ModuleList(nn.MultiheadAttention(M, H, batch_first=True) for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x, x, x, need_weights=self.need_weights)[0]
        return x


def folded(q, k, v):
    """q, k and v with batch and heads in one axis."""
    found = nn.functional.scaled_dot_product_attention(*(x.flatten(0, 1) for x in (q, k, v)))
    return found.unflatten(0, (-1, H))


def make(name: str) -> nn.Module:
    """A model by name, the same each time."""
    torch.manual_seed(7)
    models = {
        "sdpa": lambda: Plain(nn.functional.scaled_dot_product_attention),
        "folded": lambda: Plain(folded),
        "attend": lambda: Plain(hs.attend),
        "attend_lse": lambda: Plain(lambda q, k, v: hs.attend_lse(q, k, v)[0]),
        "mha": lambda: Mha(False),
        "mha with weights": lambda: Mha(True),
        "encoder": lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(M, H, 8, batch_first=True), 2, enable_nested_tensor=False
        ),
        "encoder, sequence first": lambda: Turned(),
        "hs": lambda: Own(),
    }
    return models[name]().eval()


NAMES = (
    "sdpa",
    "folded",
    "attend",
    "attend_lse",
    "mha",
    "mha with weights",
    "encoder",
    "encoder, sequence first",
    "hs",
)


class Turned(nn.Module):
    """torch's encoder with positions before the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.TransformerEncoder(nn.TransformerEncoderLayer(M, H, 8), 2, enable_nested_tensor=False)

    def forward(self, x):
        return self.inner(x.transpose(0, 1)).transpose(0, 1)


class Own(nn.Module):
    """headscope's layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(hs.nn.MultiheadAttention(M, H) for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


def inputs(seed: int = 0) -> torch.Tensor:
    """A batch."""
    return torch.randn(B, N, M, generator=torch.Generator().manual_seed(seed))
