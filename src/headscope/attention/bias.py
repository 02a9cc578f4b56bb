"""Biases: numbers added to the scores, as blocks made on demand, or as one number for each distance."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headscope.attention.known import in_mode
from headscope.errors import MaskError


class Bias(ABC):
    """Something that is added to the scores, after scale and softcap, before the softmax."""

    @abstractmethod
    def check(self, b: int, h: int, q: int, k: int) -> None:
        """Raise `MaskError` unless the bias fits these sizes."""

    @abstractmethod
    def block(self, rows: slice, first: int, last: int, q: int, k: int) -> Float[Tensor, "b h rows keys"]:
        """The bias of the queries `rows` and the keys `first … last - 1`, out of `q` queries and `k` keys.

        Queries and keys are aligned at their ends, as in masks. Axes have size 1 where all share the bias.
        """

    def whole(self, q: int, k: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "b h queries keys"]:
        """The bias of all queries and keys, on a device and in a dtype."""
        return self.block(slice(0, q), 0, k, q, k).to(device, dtype)

    @property
    @abstractmethod
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors that this bias is made from and that may need gradients."""


class OffsetBias(Bias):
    """A bias that only depends on the distance from the query to the key, and on the head."""

    @abstractmethod
    def at(self, offsets: Int[Tensor, " n"], dtype: torch.dtype | None = None) -> Float[Tensor, "h n"]:
        """The bias for keys that stand `offsets` after the query's own position, differentiable.

        On the device of the offsets; in `dtype`, or in that of the parameters.
        """

    @property
    @abstractmethod
    def heads(self) -> int:
        """How many heads there are."""

    def line(
        self, q: int, k: int, device: torch.device, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "h offsets"]:
        """The bias for every distance that occurs: query i and key j stand at `j - i + q - 1` of q + k - 1 numbers."""
        # No positions at all have no distances either.
        count = torch.sym_max(q + k - 1, 0)  # type: ignore[no-untyped-call]
        return self.at(torch.arange(count, device=device) + (1 - k), dtype)

    def check(self, b: int, h: int, q: int, k: int) -> None:
        """Raise `MaskError` unless there is a bias for each head."""
        if self.heads != h:
            raise MaskError(f"{self!r}: the bias is for {self.heads} heads and q has {h}; give one for each head.")

    def block(self, rows: slice, first: int, last: int, q: int, k: int) -> Tensor:
        """The bias of some queries and keys, `(1, h, rows, keys)`, from their distances."""
        return self._block(rows, first, last, k - q, self.parameters[0].device, None)

    def whole(self, q: int, k: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The bias of all queries and keys, computed on that device and in that dtype."""
        return self._block(slice(0, q), 0, k, k - q, device, dtype)

    def _block(
        self, rows: slice, first: int, last: int, shift: int, device: torch.device, dtype: torch.dtype | None
    ) -> Tensor:
        own = torch.arange(rows.start, rows.stop, device=device) + shift
        offsets = torch.arange(first, last, device=device) - own[:, None]
        return self.at(offsets.flatten(), dtype).view(1, self.heads, *offsets.shape)


class Alibi(OffsetBias):
    """Attention with linear biases: minus the distance, times a slope of the head's own."""

    def __init__(self, slopes: Tensor) -> None:
        self.slopes = slopes

    @property
    def heads(self) -> int:
        """One for each slope."""
        return len(self.slopes)

    def at(self, offsets: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Minus slope times distance, `(h, n)`."""
        slopes = in_mode(self.slopes).to(offsets.device, dtype)
        return -slopes[:, None] * offsets.abs()

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The slopes."""
        return (self.slopes,)

    def __repr__(self) -> str:
        return f"alibi({self.heads})"


class Relative(OffsetBias):
    """T5's learned bias: distances fall into buckets, exact for short ones and logarithmic for long ones."""

    def __init__(self, table: Tensor, bidirectional: bool, max_distance: int) -> None:
        self.table, self.bidirectional, self.max_distance = table, bidirectional, max_distance

    @property
    def heads(self) -> int:
        """One for each column of the table."""
        return self.table.shape[1]

    def at(self, offsets: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The table's entries for the buckets of these distances, `(h, n)`."""
        table = in_mode(self.table).to(offsets.device, dtype)
        return table[self.buckets(offsets)].T

    def buckets(self, offsets: Tensor) -> Tensor:
        """The bucket of each distance, as T5 numbers them."""
        count = self.table.shape[0]
        bucket = torch.zeros_like(offsets)
        if self.bidirectional:
            count //= 2
            bucket = (offsets > 0).long() * count
            distance = offsets.abs()
        else:
            distance = (-offsets).clamp(min=0)
        exact = count // 2
        ratio = (distance.clamp(min=1).float() / exact).log() / math.log(self.max_distance / exact)
        far = (exact + (ratio * (count - exact)).long()).clamp(max=count - 1)
        return bucket + torch.where(distance < exact, distance, far)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The table."""
        return (self.table,)

    def __repr__(self) -> str:
        return f"relative({self.table.shape[0]} buckets x {self.heads} heads)"


class Line(OffsetBias):
    """A bias that exists as one number for each distance.

    Args:
        values: `(h, q + k - 1)`, in the order of `line`.
        keys: how many keys there are.
    """

    def __init__(self, values: Tensor, keys: int) -> None:
        self.values, self.keys = values, keys

    @property
    def heads(self) -> int:
        """One for each row."""
        return len(self.values)

    def at(self, offsets: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The numbers of these distances, `(h, n)`."""
        return self.values.to(offsets.device, dtype)[:, offsets + self.keys - 1]

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The numbers."""
        return (self.values,)

    def __repr__(self) -> str:
        return f"line({self.heads} heads x {self.values.shape[1]} distances)"


class DenseBias(Bias):
    """A bias that exists as a tensor."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def check(self, b: int, h: int, q: int, k: int) -> None:
        """Raise `MaskError` unless every axis has the size of the scores, or 1."""
        if any(size not in (1, wanted) for size, wanted in zip(self.values.shape, (b, h, q, k), strict=True)):
            raise MaskError(
                f"dense_bias: the bias is {tuple(self.values.shape)} and the scores are {(b, h, q, k)}; "
                "give those sizes, or 1 where all share the bias."
            )

    def block(self, rows: slice, first: int, last: int, q: int, k: int) -> Tensor:
        """A part of the tensor, `(b|1, h|1, rows|1, keys|1)`, a view."""
        values = in_mode(self.values)
        values = values if values.shape[2] == 1 else values[:, :, rows]
        return values if values.shape[3] == 1 else values[..., first:last]

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensor."""
        return (self.values,)

    def __repr__(self) -> str:
        return f"dense_bias({tuple(self.values.shape)})"


def alibi(heads: int | Float[Tensor, " h"]) -> Bias:
    """Attention with linear biases: `-slope_h · |i - j|`, with the paper's slopes or slopes of your own.

    Args:
        heads: how many query heads, or one slope for each.

    Raises:
        MaskError: no heads.

    Source: Press et al. 2022, "Train Short, Test Long"; slopes as in §3 there.

    Example:
        >>> alibi(2).block(slice(0, 2), 0, 2, 2, 2)[0, 0].tolist()
        [[-0.0, -0.0625], [-0.0625, -0.0]]
    """
    if isinstance(heads, Tensor):
        return Alibi(heads)
    if heads < 1:
        raise MaskError(f"alibi: {heads} heads; give how many query heads there are, at least 1.")
    # The slopes of the next lower power of two, then every other slope of the next higher one.
    power = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * (n + 1) / power) for n in range(power)]
    slopes += [2 ** (-4 * (2 * n + 1) / power) for n in range(heads - power)]
    # Not on a default device of "meta": layers make their bias while a model is built there.
    return Alibi(torch.tensor(slopes, device="cpu"))


def relative(table: Float[Tensor, "buckets h"], bidirectional: bool = True, max_distance: int = 128) -> Bias:
    """T5's relative position bias from a (trainable) table of buckets.

    Args:
        bidirectional: keys after the query have buckets of their own, as in an encoder; a decoder gives False.
        max_distance: distances from here on share the last bucket.

    Shapes:
        table: `(buckets, h)`; gradients flow into it.

    Raises:
        MaskError: a table that is not (buckets, heads), or too few buckets for the distances.

    Source: Raffel et al. 2020 (T5), §2.1.

    Example:
        >>> bias = relative(torch.arange(8.0)[:, None], bidirectional=False, max_distance=16)
        >>> bias.block(slice(2, 3), 0, 3, 3, 3).flatten().tolist()
        [2.0, 1.0, 0.0]
    """
    if table.ndim != 2 or not table.is_floating_point():
        raise MaskError(
            f"relative: the table is {tuple(table.shape)} {table.dtype}; give (buckets, heads), floating point."
        )
    exact = table.shape[0] // (4 if bidirectional else 2)
    if exact < 1 or max_distance <= exact:
        raise MaskError(
            f"relative: {table.shape[0]} buckets and max_distance={max_distance}; give at least "
            f"{4 if bidirectional else 2} buckets and a max_distance above the {exact} distances that have a bucket "
            "of their own."
        )
    return Relative(table, bidirectional, max_distance)


def dense_bias(values: Float[Tensor, "*sizes"]) -> Bias:
    """A bias given as a tensor; gradients flow into it.

    Shapes:
        values: `(q, k)` or `(b|1, h|1, q|1, k|1)`, floating point.

    Raises:
        MaskError: not floating point, or neither two nor four axes.

    Example:
        >>> dense_bias(torch.zeros(2, 3))
        dense_bias((1, 1, 2, 3))
    """
    if not isinstance(values, Tensor):
        raise MaskError(f"dense_bias: expected a torch.Tensor, got {type(values).__name__}; give torch.as_tensor(…).")
    if not values.is_floating_point():
        raise MaskError(
            f"dense_bias: the bias is {values.dtype}; give floating point numbers. "
            "For who may see whom use hs.dense(...)."
        )
    if values.ndim not in (2, 4):
        raise MaskError(
            f"dense_bias: the bias is {tuple(values.shape)}; give (queries, keys) or "
            "(batch, heads, queries, keys), with 1 where all share it."
        )
    return DenseBias(values if values.ndim == 4 else values[None, None])
