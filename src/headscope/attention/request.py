"""What was asked of attention: one value that every path can read, and refuse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from headscope.attention.bias import Bias, DenseBias
from headscope.attention.device import Device, device_of
from headscope.attention.known import known
from headscope.attention.masks.mask import Mask
from headscope.attention.masks.runs import Runs
from headscope.attention.masks.window import Window
from headscope.attention.scalars import factor
from headscope.errors import MaskError, ShapeError
from headscope.shapes import check_qkv


class Request:
    """One call of attention, checked: q, k, v and everything that changes scores or weights.

    `where` is the name of the function that was called, for its errors.
    """

    __slots__ = ("_device", "bias", "dropout", "k", "mask", "needs_lse", "q", "scale", "sinks", "softcap", "v", "where")

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Mask | None = None,
        bias: Bias | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
        dropout: float = 0.0,
        needs_lse: bool = False,
        where: str = "attend",
    ) -> None:
        check_qkv(where, q, k, v)
        if mask is not None and not isinstance(mask, Mask):
            raise MaskError(
                f"{where}: expected a Mask, got {type(mask).__name__}; give hs.causal(), hs.padding(...), "
                "or hs.dense(tensor) for a boolean tensor."
            )
        if bias is not None and not isinstance(bias, Bias):
            raise MaskError(
                f"{where}: expected a Bias, got {type(bias).__name__}; give hs.dense_bias(tensor) "
                "for a tensor that is added to the scores."
            )
        if bias is not None:
            bias.check(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        self.scale = default_scale(q) if scale is None else factor(where, "scale", scale)
        if softcap is not None:
            softcap = factor(where, "softcap", softcap)
            if not softcap > 0:
                raise ShapeError(
                    f"{where}: softcap={softcap}; it bounds the scores to ±softcap, so give a number above 0, or None."
                )
        if sinks is not None:
            check_sinks(where, sinks, q)
        dropout = factor(where, "dropout", dropout)
        if not 0.0 <= dropout < 1.0:
            raise ShapeError(
                f"{where}: dropout={dropout}; give the probability that a weight is dropped, from 0 up to but not 1."
            )
        self.q, self.k, self.v, self.mask, self.bias, self.where = q, k, v, mask, bias, where
        self.softcap, self.sinks, self.dropout, self.needs_lse = softcap, sinks, dropout, needs_lse
        self._device: Device | None = None

    @property
    def device(self) -> Device:
        """What the device of the tensors can do; may be set, to ask what would run on another."""
        return device_of(self.q.device) if self._device is None else self._device

    @device.setter
    def device(self, device: Device) -> None:
        self._device = device

    def runs(self) -> Runs | None:
        """The runs of the mask for these queries and keys.

        Raises:
            MaskError: the mask is for other sizes.
        """
        if self.mask is None:
            return None
        runs = self.mask.runs(self.q.shape[2], self.k.shape[2], self.q.device)
        self._fits(runs.start)
        return runs

    def allowed(self) -> Tensor | None:
        """The mask written out, `(b|1, h|1, q, k)`, for these queries and keys.

        Raises:
            MaskError: the mask is for other sizes.
        """
        if self.mask is None:
            return None
        allowed = self.mask.to_dense(self.q.shape[2], self.k.shape[2], self.q.device)
        self._fits(allowed)
        return allowed

    def for_last_query(self) -> Request:
        """The same call on the keys that its one query may see; itself where it has more queries, or no slice helps.

        Raises:
            MaskError: the mask is for other sizes.
        """
        mask, bias = self.mask, self.bias
        if self.q.shape[2] != 1 or mask is None or not (bias is None or isinstance(bias, DenseBias)):
            return self
        keys = self.k.shape[2]
        seen = mask.last_query(keys, self.q.device) if known(self.q, self.k, self.v) else None
        if seen is None:
            return self
        self._fit((seen.items, seen.heads, 1))
        k, v = seen.slice(self.k), seen.slice(self.v)
        if bias is not None and bias.values.shape[3] > 1:
            bias = DenseBias(seen.slice(bias.values.mT).mT)
        return Request(
            self.q,
            k,
            v,
            seen.among,
            bias,
            self.scale,
            self.softcap,
            self.sinks,
            self.dropout,
            self.needs_lse,
            self.where,
        )

    def added(self) -> Tensor | None:
        """The mask as numbers to add, `(b|1, h|1, q, k)`, where it is one that keeps them from call to call.

        Raises:
            MaskError: the mask is for other sizes.
        """
        q, device = self.q, self.q.device
        if self.mask is None or device.type != "cpu" or not known(q):
            return None
        numbers = self.mask.added(q.shape[2], self.k.shape[2], q.dtype, device)
        if numbers is not None:
            self._fit(numbers.shape)
        return numbers

    def _fits(self, mask: Tensor) -> None:
        """Raise `MaskError` unless a mask, or its runs, are for this batch, these heads and queries, or for all."""
        self._fit(mask.shape)

    def _fit(self, sizes: Sequence[int]) -> None:
        for axis, name in enumerate(("batch items", "heads", "queries")):
            size, wanted = sizes[axis], self.q.shape[axis]
            if size not in (1, wanted):
                raise MaskError(
                    f"{self.where}: {self.mask!r} is for {size} {name} and q has {wanted}; "
                    f"give a mask for {wanted}, or one that all share."
                )

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but q, k and v, and perhaps a mask that torch calls causal too."""
        if (
            self.bias is not None
            or self.softcap is not None
            or self.sinks is not None
            or self.dropout
            or self.needs_lse
        ):
            return False
        return self.mask is None or self.is_causal

    @property
    def is_causal(self) -> bool:
        """Whether the mask is exactly `causal()` and torch means the same by it: on a square, or for one query."""
        mask = self.mask
        if not isinstance(mask, Window) or mask.left is not None or mask.right != 0:
            return False
        return self.q.shape[2] in (1, self.k.shape[2])

    @property
    def trains(self) -> bool:
        """Whether a gradient will be asked of this call."""
        if not torch.is_grad_enabled():
            return False
        extra = () if self.bias is None else self.bias.parameters
        return any(t.requires_grad for t in (self.q, self.k, self.v, *extra)) or (
            self.sinks is not None and self.sinks.requires_grad
        )


def check_sinks(where: str, sinks: Tensor, q: Tensor) -> None:
    """Raise `ShapeError` unless there is one sink for each head of q, on its device."""
    if not isinstance(sinks, Tensor):
        raise ShapeError(
            f"{where}: sinks are a {type(sinks).__name__}; give a torch.Tensor with one logit for each head."
        )
    if tuple(sinks.shape) != (q.shape[1],):
        raise ShapeError(
            f"{where}: sinks are {tuple(sinks.shape)} and q has {q.shape[1]} heads; "
            f"give one sink logit for each head: ({q.shape[1]},)."
        )
    if sinks.device != q.device:
        raise ShapeError(f"{where}: sinks are on {sinks.device} and q is on {q.device}; move them: sinks.to(q.device).")


def default_scale(q: Tensor) -> float:
    """`1/√d`; 1 for queries without features, whose scores are all 0."""
    size = q.shape[3]
    return 1.0 / math.sqrt(size) if size else 1.0
