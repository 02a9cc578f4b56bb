"""What is seen of one architecture: recorded on sdpa, compared with its own eager weights and with "headscope"."""

from __future__ import annotations

import gc
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import headscope as hs
from headscope.errors import NothingRecorded
from tests.families import tiny

CLOSE = 2e-5
LARGEST = 30_000_000


class Seen(NamedTuple):
    """One line of the table.

    Attributes:
        status: "recorded", "missed" (attention that nobody heard), "no sdpa", "not built", "no input" (a model that
            does not run on any of the inputs that are made from its configuration alone).
        eager: the largest difference from the model's own eager weights; None where it has none to compare with.
        ours: the largest difference of the outputs with attn_implementation="headscope", relative to their size.
    """

    kind: str
    status: str
    layers: int = 0
    heads: int = 0
    same: bool = True
    eager: float | None = None
    ours: float | None = None
    note: str = ""


def examine(kind: str) -> Seen:
    """Build, run, record and compare one architecture."""
    try:
        model, inputs = tiny.build(kind, "sdpa")
    except Exception as error:  # noqa: BLE001 - a library of many models says many things
        text = f"{type(error).__name__}: {error}".splitlines()[0][:100]
        if "scaled_dot_product_attention" in str(error) or "does not support an attention implementation" in str(error):
            return Seen(kind, "no sdpa")
        return Seen(kind, "no input" if "no input fits" in text else "not built", note=text)
    if sum(p.numel() for p in model.parameters()) > LARGEST:
        return Seen(kind, "not built", note="too large without downloads of a small configuration")
    with torch.no_grad():
        torch.manual_seed(0)
        before = model(**inputs)
        try:
            torch.manual_seed(0)
            with hs.record(model) as recording:
                during = model(**inputs)
        except NothingRecorded as error:
            return Seen(kind, "missed", note=str(error)[:120])
        same = all(
            torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(leaves(before), leaves(during), strict=True)
        )
        heads = sum(layer.heads for layer in recording.layers)
        gap, note = against_eager(kind, recording)
        ours = against_ours(kind, before, inputs)
    del model
    gc.collect()
    return Seen(kind, "recorded", len(recording.layers), heads, same, gap, ours, note)


def leaves(output: Any) -> list[Tensor]:
    """Every tensor of floating point numbers in an output."""
    given = tuple(output.values()) if hasattr(output, "values") else output
    return [x for x in tree_leaves(given) if isinstance(x, Tensor) and x.is_floating_point()]


def against_eager(kind: str, recording: hs.Recording) -> tuple[float | None, str]:
    """The largest difference between recorded weights and those that the eager model returns, or is recorded with."""
    try:
        model, inputs = tiny.build(kind, "eager")
        output = model(**inputs, output_attentions=True)
        with hs.record(model) as eager:
            model(**inputs)
    except Exception as error:  # noqa: BLE001
        return None, f"eager: {type(error).__name__}"
    weights = [
        w for name in output if "attentions" in name for w in tree_leaves(output[name]) if w is not None and w.ndim == 4
    ]
    found = [matrix(layer) for layer in recording.layers]
    if weights:
        gaps = [min((gap(w, f) for f in found if f.shape == w.shape), default=None) for w in weights]
        known = [g for g in gaps if g is not None]
        if known and len(known) >= len(found) // 2:
            return max(known), ""
    if len(eager.layers) != len(found):
        return None, f"eager records {len(eager.layers)} layers"
    return max(gap(matrix(layer), f) for layer, f in zip(eager.layers, found, strict=True)), "against recorded eager"


def matrix(layer: Any) -> Tensor:
    """The weights of a whole layer, `(b, h, q, k)`."""
    return torch.stack(
        [torch.stack([layer.head(head, item).weights() for head in range(layer.heads)]) for item in range(layer.items)]
    )


def gap(theirs: Tensor, mine: Tensor) -> float:
    """The largest difference, on queries that may see something."""
    if theirs.shape != mine.shape:
        return float("inf")
    rows = mine.sum(-1) > 0
    return float((theirs.float() - mine).abs().amax(-1)[rows].max()) if rows.any() else 0.0


def against_ours(kind: str, before: Any, inputs: dict[str, Any]) -> float | None:
    """The largest difference of the outputs with "headscope" from those with sdpa, on tokens that are no padding."""
    try:
        model, _ = tiny.build(kind, "headscope")
    except (ValueError, KeyError, RuntimeError):
        return None
    torch.manual_seed(0)
    after = model(**inputs)
    real = inputs.get("attention_mask")
    worst = 0.0
    for a, b in zip(leaves(before)[:1], leaves(after)[:1], strict=True):
        if real is not None and a.shape[:2] == real.shape:
            a, b = a[real.bool()], b[real.bool()]
        worst = max(worst, float((a - b).abs().max() / (a.abs().max() + 1e-6)))
    return worst
