"""Inputs to queries, keys and values: linear maps whose rows are laid out head by head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from headscope.errors import ShapeError
from headscope.shapes import shape

# Every way in which the three can share linear maps. One map for all three is fastest, where one input feeds them all.
PACKINGS = (("qkv",), ("q", "kv"), ("q", "k", "v"))


class HeadLinear(nn.Linear):
    """A linear map to one or more of q, k and v for every head, computed as one matrix product.

    The rows of its weight belong to head 0 first, then to head 1, …; inside a head to q, then k, then v. So a slice of
    whole heads is a slice of rows, which is how tensor parallelism cuts it.

    Args:
        input_dim: the width of the input.
        heads: how many heads.
        head_dim: the size of one query, key or value.
        letters: what is made, such as "qkv" or "kv".
        bias: whether something is added.

    Shapes:
        x `(b, n, input_dim)` → `(b, n, heads · letters · d)`; `per_head` makes `(b, heads, n, letters · d)` of that,
        and `split` `(b, heads, n, d)` for each letter of that. Both are views.

    Example:
        >>> linear = HeadLinear(1024, 8, 64, "qkv")
        >>> q, k, v = linear.split(linear.per_head(linear(torch.randn(30, 5, 1024))))
        >>> q.shape
        torch.Size([30, 8, 5, 64])
    """

    def __init__(
        self,
        input_dim: int,
        heads: int,
        head_dim: int,
        letters: str,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.letters, self.head_dim, self.has_bias = letters, head_dim, bias
        super().__init__(input_dim, heads * len(letters) * head_dim, bias=bias, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Xavier-uniform weights and zero biases, as `nn.MultiheadAttention` draws them.

        There the packed matrix counts as one, and separate matrices each for themselves.
        """
        rows = self.out_features if self.letters == "qkv" else self.out_features // len(self.letters)
        bound = (6 / (rows + self.in_features)) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.has_bias:
            nn.init.zeros_(self.bias)

    def per_head(self, together: Float[Tensor, "b n _"]) -> Float[Tensor, "b _ n _"]:
        """The output with an axis of heads. How many is read off the tensor: under tensor parallelism it is a share."""
        return split_heads(together, len(self.letters) * self.head_dim)

    def split(self, heads: Float[Tensor, "b h n _"]) -> Sequence[Float[Tensor, "b h n _"]]:
        """One tensor per letter."""
        return torch.split(heads, self.head_dim, dim=-1)

    def heads(self, together: Float[Tensor, "b n _"]) -> Sequence[Float[Tensor, "b _ n d"]]:
        """Both at once. Taken apart before the axes change places, so that gradients come together in one copy."""
        b, n, width = together.shape
        count = len(self.letters)
        parts = together.view(b, n, width // (count * self.head_dim), count, self.head_dim).unbind(3)
        return [part.transpose(1, 2) for part in parts]

    def letter(self, name: str) -> tuple[Tensor, Tensor | None]:
        """The weight `(heads · d, input_dim)` and the bias `(heads · d)` of one letter alone."""
        where, count = self.letters.index(name), len(self.letters)
        bias = unpack(self.bias, count, self.head_dim)[where] if self.has_bias else None
        return unpack(self.weight, count, self.head_dim)[where], bias

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{super().extra_repr()}, letters={self.letters!r}, head_dim={self.head_dim}"


class Projection(nn.Module):
    """x, and memory where there is one, to the queries, keys and values of every head.

    One packed map makes all three where they have one input and the same number of heads; keys and values of another
    input or with fewer heads have a map of their own. The state dict of one packing loads into another: a saved `q`,
    `k`, `v` into `qkv`, and back.

    Args:
        input_dim: the width of x, which the queries are made of.
        kv_dim: the width of memory, which keys and values are made of; None: keys and values are made of x.
        heads, kv_heads: how many query heads and key/value heads.
        head_dim: the size of one query, key or value.
        bias: for all three, or the letters of those that have one, such as "qv".

    Shapes:
        x `(b, q, input_dim)`, memory `(b, k, kv_dim)` → q `(b, h, q, d)`, k and v `(b, g, k, d)`.

    Raises:
        ShapeError: x or memory is of another width, or is no batch of sequences.

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
        self.of_memory = kv_dim is not None
        alike = [(letter in letters) == ("k" in letters) for letter in "qv"]
        one = all(alike) and kv_dim is None and kv_heads == heads
        self.packing = PACKINGS[0] if one else PACKINGS[1] if alike[1] else PACKINGS[2]
        for part in self.packing:
            count, width = (kv_heads, self.kv_dim) if part in ("k", "v", "kv") else (heads, input_dim)
            self.add_module(part, HeadLinear(width, count, head_dim, part, part[0] in letters, device, dtype))
        self.register_load_state_dict_pre_hook(repack)  # type: ignore[no-untyped-call]

    def part(self, name: str) -> HeadLinear:
        """One of the linear maps."""
        found = getattr(self, name)
        assert isinstance(found, HeadLinear)
        return found

    def reset_parameters(self) -> None:
        """New random weights, as `nn.MultiheadAttention` draws them."""
        for name in self.packing:
            self.part(name).reset_parameters()

    def check(self, where: str, x: Tensor, memory: Tensor | None, remembered: bool = False) -> None:
        """Raise `ShapeError` unless x and memory, given now or remembered, are what this layer was made for."""
        for name, given, width in (("x", x, self.input_dim), ("memory", memory, self.kv_dim)):
            if given is not None and (given.ndim != 3 or given.shape[-1] != width):
                raise ShapeError(
                    f"{where}: {name} is {shape(given)}; this layer takes (batch, positions, {width}). {ADVICE[name]}"
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
            return self.apart(x, memory)
        found: list[Tensor] = []
        for name in self.packing:
            linear = self.part(name)
            source = x if memory is None or "q" in name else memory
            found += linear.heads(linear(source))
        q, k, v = found
        return q, k, v

    def queries(self, x: Float[Tensor, "b q _"]) -> Float[Tensor, "b h q d"]:
        """q of x alone, where keys and values are at hand already."""
        linear = self.part(self.packing[0])
        y = F.linear(x, *linear.letter("q")) if len(self.packing) == 1 else linear(x)
        return split_heads(y, linear.head_dim)

    def apart(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The packed map used for cross-attention: its rows for q on x, its rows for k and v on memory."""
        linear = self.part("qkv")
        made = [F.linear(source, *linear.letter(name)) for name, source in (("q", x), ("k", memory), ("v", memory))]
        q, k, v = (split_heads(y, linear.head_dim) for y in made)
        return q, k, v


ADVICE = {
    "x": "Give sequences of that width (input_dim), or make the layer with input_dim=….",
    "memory": "Give a memory of that width, or make the layer with kv_dim=….",
}


def split_heads(x: Float[Tensor, "b n _"], size: int) -> Float[Tensor, "b _ n _"]:
    """`(b, n, heads · size)` as `(b, heads, n, size)`: a view."""
    b, n, width = x.shape
    return x.view(b, n, width // size, size).transpose(1, 2)


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
    head_dim = module.part(own[0]).head_dim
    for kind in ("weight", "bias"):
        letters: dict[str, Tensor] = {}
        for part in theirs:
            packed = state.pop(f"{prefix}{part}.{kind}", None)
            if packed is not None:
                letters.update(zip(part, unpack(packed, len(part), head_dim), strict=True))
        for part in own:
            if all(letter in letters for letter in part):
                state[f"{prefix}{part}.{kind}"] = pack([letters[letter] for letter in part], head_dim)
