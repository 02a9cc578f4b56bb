"""A bias as tiles read it: a number for every distance, or a dense tensor; and its gradient, gathered tile by tile."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from headscope.attention.bias import Bias, DenseBias, OffsetBias
from headscope.attention.known import in_mode
from headscope.shapes import acc_dtype


class TileBias:
    """Blocks of a bias, and the sum of their gradients.

    Shapes:
        values: a line `(h, q + k - 1)`, where query i and key j stand at `j - i + q - 1`; or dense
        `(b|1, h|1, q|1, k|1)`.
    """

    def __init__(self, values: Tensor, queries: int) -> None:
        self.values, self.queries = values, queries
        self.grad = torch.zeros_like(values, dtype=acc_dtype(values.dtype))

    @property
    def is_line(self) -> bool:
        """Whether there is one number for each distance, not for each pair."""
        return self.values.ndim == 2

    def reversed_rows(self, heads: slice, rows: slice, first: int, last: int) -> Tensor:
        """The block of a line with its rows in reversed order, as a view: nothing of size rows x keys is made.

        Down the reversed rows and along the keys the distance grows by one each, so both strides are 1; in the order of
        the rows one of them would be negative, which torch does not have.
        """
        line = self.values[heads]
        size = (1, line.shape[0], rows.stop - rows.start, last - first)
        return line.as_strided(
            size, (0, line.stride(0), 1, 1), line.storage_offset() + first - rows.stop + self.queries
        )

    def block(self, items: slice, heads: slice, rows: slice, first: int, last: int) -> Tensor:
        """The bias of some rows and keys, with four axes; those of size 1 are shared."""
        if self.is_line:
            return self.reversed_rows(heads, rows, first, last).flip(2)
        return self._window(self.values, items, heads, rows, first, last)

    def add_gradient(self, items: slice, heads: slice, rows: slice, first: int, last: int, grad: Tensor) -> None:
        """Add the gradient of a block, `(items, heads, rows, keys)`."""
        if not self.is_line:
            target = self._window(self.grad, items, heads, rows, first, last)
            target += grad.sum_to_size(target.shape)
            return
        count, keys = grad.shape[2:]
        # Shift every row by one more than the row below it: then each distance is a column.
        skewed = pad(grad.sum(0).flip(1), (0, count)).flatten(1)[:, : count * (keys + count - 1)]
        line = skewed.view(len(skewed), count, keys + count - 1).sum(1)
        start = first - rows.stop + self.queries
        self.grad[heads, start : start + keys + count - 1] += line

    def whole(self, keys: int) -> Tensor:
        """The bias of all queries and keys, with four axes, differentiable."""
        if not self.is_line:
            return self.values
        offsets = torch.arange(keys, device=self.values.device) + (self.queries - 1)
        return self.values[None, :, offsets - torch.arange(self.queries, device=offsets.device)[:, None]]

    @staticmethod
    def _window(values: Tensor, items: slice, heads: slice, rows: slice, first: int, last: int) -> Tensor:
        wanted = (items, heads, rows, slice(first, last))
        return values[tuple(slice(None) if size == 1 else cut for size, cut in zip(values.shape, wanted, strict=True))]


def bias_values(bias: Bias, q: int, k: int, like: Tensor) -> Tensor:
    """The numbers a bias is made of, with their autograd history: a line where distances decide, else the tensor.

    In float32 (float64 for float64) or in the dtype of the queries: what the kernels take beside them.
    """
    wide = acc_dtype(like.dtype)
    if isinstance(bias, OffsetBias):
        return bias.line(q, k, like.device, wide).contiguous()
    if isinstance(bias, DenseBias):
        return in_mode(bias.values).to(like.device, like.dtype if bias.values.dtype == like.dtype else wide)
    # A bias of another kind is its blocks; all of them at once are a dense bias.
    return bias.whole(q, k, like.device, wide)
