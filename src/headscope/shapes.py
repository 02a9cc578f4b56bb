"""The letters of every shape, and the one check of q, k and v.

| letter | meaning                                             |
|--------|-----------------------------------------------------|
| `b`    | batch                                               |
| `h`    | query heads                                         |
| `g`    | key/value heads; `h % g == 0`, `h == g` without groups |
| `q`    | queries                                             |
| `k`    | keys                                                |
| `d`    | size of one query or key in one head                |
| `e`    | size of one value in one head                       |
| `m`    | model size                                          |
| `r`    | runs of keys per query                              |

Tensors are `(b, h, q, d)`, as in `torch.nn.functional.scaled_dot_product_attention`.
"""

import torch
from torch import Tensor

from headscope.errors import ShapeError


def acc_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype to accumulate in: float64 stays, everything else is summed in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def shape(tensor: Tensor) -> tuple[int, ...]:
    """The sizes of a tensor as a plain tuple, which prints as `(2, 3, 5)`."""
    return tuple(tensor.shape)


FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_tensors(where: str, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise `ShapeError` unless the three are tensors of torch with one size for each axis."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, Tensor):
            raise ShapeError(
                f"{where}: expected {name} as a torch.Tensor, got {type(x).__name__}; give torch.as_tensor(…)."
            )
        if x.is_nested or x.layout != torch.strided:
            kind = "nested" if x.is_nested else str(x.layout).removeprefix("torch.")
            raise ShapeError(
                f"{where}: {name} is a {kind} tensor, and attention reads dense ones; give padded tensors and "
                "hs.padding(lengths), or packed ones and hs.documents(lengths)."
            )


def check_qkv(where: str, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise `ShapeError` unless q `(b, h, q, d)`, k `(b, g, k, d)` and v `(b, g, k, e)` fit together."""
    check_tensors(where, q, k, v)
    qs, ks, vs = q.shape, k.shape, v.shape
    if len(qs) != 4 or len(ks) != 4 or len(vs) != 4:
        raise ShapeError(
            f"{where}: q, k and v must have four axes (batch, heads, positions, size); given q {shape(q)}, "
            f"k {shape(k)}, v {shape(v)}. For one head without a batch add the two axes with x[None, None]."
        )
    if qs[0] != ks[0] or ks[0] != vs[0]:
        raise ShapeError(
            f"{where}: q, k and v have batches of {qs[0]}, {ks[0]} and {vs[0]}; the three must be equal. "
            "Expand the smaller ones."
        )
    if qs[3] != ks[3]:
        raise ShapeError(
            f"{where}: a query has {qs[3]} features and a key has {ks[3]}; a score is their dot product, "
            "so give both the same size."
        )
    if ks[1] != vs[1] or ks[2] != vs[2]:
        raise ShapeError(
            f"{where}: k has {ks[1]} heads x {ks[2]} keys and v has {vs[1]} heads x {vs[2]} values; "
            "each key needs exactly one value."
        )
    if ks[1] == 0 or qs[1] % ks[1]:
        raise ShapeError(
            f"{where}: k has {ks[1]} heads and q has {qs[1]}; {qs[1]} is not a multiple of {ks[1]}. "
            f"For grouped queries give k and v g heads with {qs[1]} % g == 0."
        )
    if q.dtype != k.dtype or k.dtype != v.dtype:
        raise ShapeError(
            f"{where}: q, k and v are {q.dtype}, {k.dtype} and {v.dtype}; give the three one dtype with .to(q.dtype), "
            "or call this under torch.autocast, which casts them."
        )
    if q.dtype not in FLOATS:
        raise ShapeError(
            f"{where}: q, k and v are {q.dtype}; attention needs float64, float32, bfloat16 or float16. "
            "Convert them with .float()."
        )
    if q.device != k.device or k.device != v.device:
        raise ShapeError(
            f"{where}: q, k and v are on {q.device}, {k.device} and {v.device}; "
            "move the three to one device with .to(q.device)."
        )
