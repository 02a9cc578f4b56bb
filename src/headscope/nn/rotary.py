"""Rotary positions: queries and keys are turned by an angle that grows with their position."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from headscope.errors import ShapeError
from headscope.nn.computed import Computed
from headscope.nn.placement import columns
from headscope.shapes import shape


class Rotary(Computed):
    """Turns pairs of features of q and k by `position · frequency`, so that a score depends on the distance alone.

    The angles are kept in float32 (float64 for a float64 model) whatever dtype the model has.

    Args:
        head_dim: the size of one query or key.
        base: of the frequencies `base^(-2i / size)`.
        fraction: the share of the features that are turned; the others stay as they are.
        frequencies: one for each pair, in radians per position, for scaled variants (Llama 3, NTK, YaRN); then `base`
            is not used, and as many pairs are turned as there are frequencies.
        amplitude: multiplies sine and cosine, as YaRN does.
        interleaved: pairs are neighbours (0, 1), (2, 3), …; else feature i goes with feature i + size/2.
        max_positions: how many positions the table holds.

    Shapes:
        x `(b, h, n, head_dim)`, and the position of its first column, for all or `(b,)`, or the positions of all
        columns, `(n,)` or `(b, n)` → the same shape.

    Raises:
        ShapeError: an odd number of features to turn, frequencies without numbers; in use, positions past the table or
            of another length.

    Source: Su et al. 2021, "RoFormer", §3.2.2; Peng et al. 2023 for YaRN.

    Example:
        >>> rotary = Rotary(8)
        >>> q = torch.ones(1, 1, 5, 8)
        >>> turned = rotary(q)
        >>> bool(torch.allclose(turned[0, 0, 1] @ turned[0, 0, 3], turned[0, 0, 2] @ turned[0, 0, 4]))
        True
    """

    cosine: Tensor
    sine: Tensor

    def __init__(
        self,
        head_dim: int,
        *,
        base: float = 10000.0,
        fraction: float = 1.0,
        frequencies: Float[Tensor, " pairs"] | None = None,
        amplitude: float = 1.0,
        interleaved: bool = False,
        max_positions: int = 8192,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        size = int(head_dim * fraction) if frequencies is None else 2 * len(frequencies)
        if size % 2 or not 0 < size <= head_dim:
            raise ShapeError(
                f"Rotary: {size} of {head_dim} features would be turned, in pairs; give a fraction (or frequencies) "
                f"that makes an even number from 2 to {head_dim}."
            )
        self.head_dim, self.size, self.amplitude = head_dim, size, amplitude
        self.interleaved, self.max_positions = interleaved, max_positions
        if frequencies is None:
            frequencies = base ** -(torch.arange(0, size, 2, dtype=torch.float64, device="cpu") / size)
        if frequencies.is_meta:
            raise ShapeError("Rotary: frequencies are on the meta device and have no numbers; give them on the CPU.")
        self.frequencies = frequencies.detach().to("cpu", torch.float64)
        self.build(device, torch.float32)

    def tables(self) -> Mapping[str, Tensor]:
        """The sines and cosines, `(max_positions, size)` each, signs included."""
        angles = torch.outer(torch.arange(self.max_positions, dtype=torch.float64, device="cpu"), self.frequencies)
        cosine, sine = angles.cos() * self.amplitude, angles.sin() * self.amplitude
        pairs = {"cosine": (cosine, cosine), "sine": (-sine, sine)}
        if self.interleaved:
            return {name: torch.stack(two, -1).flatten(1) for name, two in pairs.items()}
        return {name: torch.cat(two, -1) for name, two in pairs.items()}

    def check(self, where: str, last: int) -> None:
        """Raise `ShapeError` when the positions up to `last`, exclusive, are not all in the table."""
        if last > self.max_positions:
            raise ShapeError(
                f"{where}: position {last - 1} is past the rotary table of {self.max_positions} positions; "
                "make Rotary with a larger max_positions, or give a shorter sequence."
            )

    def forward(
        self,
        x: Float[Tensor, "b h n d"],
        first: int | Int[Tensor, " b"] = 0,
        *,
        positions: Shaped[Tensor, "*at"] | None = None,
    ) -> Float[Tensor, "b h n d"]:
        """Turn x, whose first column is at position `first`, or whose columns are at `positions`."""
        b, n = x.shape[0], x.shape[2]
        cosine, sine = self.computed("cosine", x.device), self.computed("sine", x.device)
        if positions is None and isinstance(first, int):
            self.check("Rotary", first + n)
            cosine, sine = cosine[first : first + n], sine[first : first + n]
        else:
            at = columns("Rotary", first, positions, b, n, self.max_positions).to(x.device)
            cosine, sine = (table[at] if at.ndim == 1 else table[at][:, None] for table in (cosine, sine))
        if self.size == x.shape[3]:
            return self.turn(x, cosine, sine)
        if self.head_dim != x.shape[3]:
            raise ShapeError(f"Rotary: x is {shape(x)} and this table is for heads of size {self.head_dim}.")
        return torch.cat((self.turn(x[..., : self.size], cosine, sine), x[..., self.size :]), -1)

    def turn(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """`x · cos + partner · sin`, where the signs of the sines are in the table."""
        if self.interleaved:
            partner = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)  # type: ignore[no-untyped-call]
        else:
            partner = x.roll(self.size // 2, -1)
        return torch.addcmul(x * cosine, partner, sine).to(x.dtype)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{self.head_dim}, size={self.size}, interleaved={self.interleaved}, max_positions={self.max_positions}"
