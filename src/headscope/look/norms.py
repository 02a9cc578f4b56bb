"""How much of the output a weight carries (Kobayashi et al. 2020)."""

from __future__ import annotations

from torch import Tensor

from headscope.errors import LookError
from headscope.shapes import acc_dtype, shape


def norms(v: Tensor | None, W_O: Tensor | None) -> Tensor:
    """`‖v_j W_O‖` of every key.

    Raises:
        LookError: there are no values, or W_O does not fit them.
    """
    if v is None:
        raise LookError(
            "value_weighted: this head was recorded without its values; record with values=True, or give v to hs.Head."
        )
    values = v.detach().to(acc_dtype(v.dtype))
    if W_O is not None:
        if W_O.ndim != 2 or len(W_O) != values.shape[1]:
            raise LookError(
                f"value_weighted: W_O is {shape(W_O)} and a value has {values.shape[1]} numbers; give the rows of the "
                f"output projection that belong to this head: ({values.shape[1]}, model size)."
            )
        values = values @ W_O.detach().to(values)
    return values.square().sum(-1).sqrt()
