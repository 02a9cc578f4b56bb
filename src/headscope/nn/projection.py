"""Inputs to queries, keys and values: linear maps whose rows are laid out head by head.

The rows of a map belong to head 0 first, then to head 1, …; inside a head to q, then k, then v. So a slice of whole
heads is a slice of rows, which is how tensor parallelism cuts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from headscope.errors import ShapeError
from headscope.nn.untouched import untouched
from headscope.shapes import shape

# Every way in which the three can share linear maps. One map for all three is fastest, where one input feeds them all.
PACKINGS = (("qkv",), ("q", "kv"), ("q", "k", "v"))


class Projection(nn.Module):
    """x, and memory where there is one, to the queries, keys and values of every head.

    One packed map makes all three where they have one input and the same number of heads; keys and values of another
    input or with fewer heads have a map of their own. The state dict of one packing loads into another: a saved `q`,
    `k`, `v` into `qkv`, and back.

    Each map is an `nn.Linear`, and is only ever called: it may be hooked, parametrized, quantized, offloaded, or
    replaced by any callable of the same widths (LoRA). Rows of a packed map are used alone, for the keys of a memory,
    only while it is an `nn.Linear` that nobody touched; else it is called on both inputs.

    Args:
        input_dim: the width of x, which the queries are made of.
        kv_dim: the width of memory, which keys and values are made of; None: keys and values are made of x.
        heads, kv_heads: how many query heads and key/value heads.
        head_dim: the size of one query, key or value.
        bias: for all three, or the letters of those that have one, such as "qv".

    Shapes:
        x `(b, q, input_dim)`, memory `(b, k, kv_dim)` → q `(b, h, q, d)`, k and v `(b, g, k, d)`.

    Raises:
        ShapeError: x or memory is of another width, or does not have three axes.

    Example:
        >>> [p for p, _ in Projection(8, None, 4, 4, 2).named_parameters()]
        ['qkv.weight', 'qkv.bias']
        >>> [p for p, _ in Projection(8, None, 4, 2, 2, bias=False).named_parameters()]
        ['q.weight', 'kv.weight']
    """

    def __init__(
        self,
        input_dim: int,
        kv_dim: int | None,
        heads: int,
        kv_heads: int,
        head_dim: int,
        bias: bool | str = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        letters = bias if isinstance(bias, str) else "qkv" if bias else ""
        if not set(letters) <= set("qkv"):
            raise ShapeError(f"bias={bias!r}; give True, False, or the letters of those that have one, such as 'qv'.")
        self.input_dim, self.kv_dim = input_dim, input_dim if kv_dim is None else kv_dim
        self.of_memory, self.head_dim = kv_dim is not None, head_dim
        alike = [(letter in letters) == ("k" in letters) for letter in "qv"]
        one = all(alike) and kv_dim is None and kv_heads == heads
        self.packing = PACKINGS[0] if one else PACKINGS[1] if alike[1] else PACKINGS[2]
        for part in self.packing:
            count, width = (kv_heads, self.kv_dim) if part in ("k", "v", "kv") else (heads, input_dim)
            options: dict[str, Any] = {"bias": part[0] in letters, "device": device or torch.get_default_device()}
            # Drawn once, below, and not by nn.Linear first.
            made = nn.utils.skip_init(nn.Linear, width, count * len(part) * head_dim, dtype=dtype, **options)  # type: ignore[no-untyped-call]
            self.add_module(part, made)
        self.reset_parameters()
        self.register_load_state_dict_pre_hook(repack)  # type: ignore[no-untyped-call]

    def part(self, name: str) -> nn.Module:
        """One of the linear maps, or what it was replaced by."""
        found = getattr(self, name)
        assert isinstance(found, nn.Module)
        return found

    def reset_parameters(self) -> None:
        """Xavier-uniform weights and zero biases, as `nn.MultiheadAttention` draws them.

        There the packed matrix counts as one, and separate matrices each for themselves.
        """
        for name in self.packing:
            linear = self.part(name)
            assert isinstance(linear, nn.Linear)
            rows = linear.out_features if name == "qkv" else linear.out_features // len(name)
            bound = (6 / (rows + linear.in_features)) ** 0.5
            nn.init.uniform_(linear.weight, -bound, bound)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def check(self, where: str, x: Tensor, memory: Tensor | None, remembered: bool = False) -> None:
        """Raise `ShapeError` unless x and memory, given now or remembered, are what this layer was made for."""
        for name, tensor, width in (("x", x, self.input_dim), ("memory", memory, self.kv_dim)):
            if tensor is not None and (tensor.ndim != 3 or tensor.shape[-1] != width):
                raise ShapeError(
                    f"{where}: {name} is {shape(tensor)}; this layer takes (batch, positions, {width}). {ADVICE[name]}"
                )
        if memory is not None and len(memory) != len(x):
            raise ShapeError(
                f"{where}: x has a batch of {len(x)} and memory of {len(memory)}; give each sequence its own memory."
            )
        if memory is None and self.of_memory and not remembered:
            raise ShapeError(
                f"{where}: no memory was given; this layer makes its keys of one of width {self.kv_dim}. Give memory=…"
            )

    def forward(
        self, x: Float[Tensor, "b q _"], memory: Float[Tensor, "b k _"] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q of x; k and v of memory, or of x where there is none."""
        if memory is not None and len(self.packing) == 1:
            (q,), (k, v) = self.rows(x, "q"), self.rows(memory, "kv")
            return q, k, v
        found: list[Tensor] = []
        for name in self.packing:
            source = x if memory is None or "q" in name else memory
            found += self.split(name, self.part(name)(source))
        q, k, v = found
        return q, k, v

    def queries(self, x: Float[Tensor, "b q _"]) -> Float[Tensor, "b h q d"]:
        """q of x alone, where keys and values exist already."""
        made = self.rows(x, "q") if len(self.packing) == 1 else self.split("q", self.part("q")(x))
        return made[0]

    def rows(self, x: Float[Tensor, "b n _"], wanted: str) -> Sequence[Float[Tensor, "b _ n d"]]:
        """Some letters of the packed map: from its rows for them, or from its full output where it was wrapped."""
        linear = self.part("qkv")
        if not untouched(linear, nn.Linear):
            made = dict(zip("qkv", self.split("qkv", linear(x)), strict=True))
            return [made[letter] for letter in wanted]
        weights = self.letters("qkv", linear.weight)
        biases = self.letters("qkv", linear.bias)
        return [split_heads(F.linear(x, weights[letter], biases.get(letter)), self.head_dim) for letter in wanted]

    def split(self, name: str, together: Float[Tensor, "b n _"]) -> Sequence[Float[Tensor, "b _ n d"]]:
        """What the map `name` made, as one tensor per letter with an axis of heads: views.

        How many heads there are is read off the tensor: under tensor parallelism it is a share. The letters are taken
        apart before the axes change places, so that gradients come together in one copy.
        """
        b, n, width = together.shape
        parts = together.reshape(b, n, width // (len(name) * self.head_dim), len(name), self.head_dim).unbind(3)
        return [part.transpose(1, 2) for part in parts]

    def letters(self, name: str, packed: Tensor | None) -> dict[str, Tensor]:
        """The weight `(heads · d, input_dim)` or the bias `(heads · d)` of a map, for each of its letters alone."""
        if packed is None:
            return {}
        return dict(zip(name, unpack(packed, len(name), self.head_dim), strict=True))


ADVICE = {
    "x": "Give sequences of that width (input_dim), or make the layer with input_dim=….",
    "memory": "Give a memory of that width, or make the layer with kv_dim=….",
}


def split_heads(x: Float[Tensor, "b n _"], size: int) -> Float[Tensor, "b _ n _"]:
    """`(b, n, heads · size)` as `(b, heads, n, size)`: a view."""
    b, n, width = x.shape
    return x.reshape(b, n, width // size, size).transpose(1, 2)


def pack(tensors: Sequence[Tensor], head_dim: int) -> Tensor:
    """The weights or biases of single letters `(heads · d, …)` as one, laid out head by head."""
    rows = [t.reshape(-1, head_dim, *t.shape[1:]) for t in tensors]
    return torch.stack(rows, dim=1).flatten(0, 2)


def unpack(packed: Tensor, letters: int, head_dim: int) -> Sequence[Tensor]:
    """What `pack` put together, as one tensor per letter."""
    return [t.flatten(0, 1) for t in packed.reshape(-1, letters, head_dim, *packed.shape[1:]).unbind(1)]


def repack(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Before a state dict is loaded: put its linear maps together as this layer has them."""
    assert isinstance(module, Projection)
    own = module.packing
    theirs = next((packing for packing in PACKINGS if all(f"{prefix}{part}.weight" in state for part in packing)), own)
    if theirs == own:
        return
    head_dim = module.head_dim
    for kind in ("weight", "bias"):
        letters: dict[str, Tensor] = {}
        for part in theirs:
            packed = state.pop(f"{prefix}{part}.{kind}", None)
            if packed is not None:
                letters.update(zip(part, unpack(packed, len(part), head_dim), strict=True))
        for part in own:
            if all(letter in letters for letter in part):
                state[f"{prefix}{part}.{kind}"] = pack([letters[letter] for letter in part], head_dim)
