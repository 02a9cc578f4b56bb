"""What is seen of one architecture: recorded on sdpa, against its own eager weights; and headscope against eager."""

from __future__ import annotations

import gc
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import headscope as hs
from headscope.errors import NothingRecorded
from tests.families import tiny
from tests.families.agree import Agreement, agree

CLOSE = 2e-5
CLOSE_GRADIENTS = 1e-4
LARGEST = 30_000_000


class Seen(NamedTuple):
    """One line of the table.

    Attributes:
        status: "recorded", "missed" (attention that nobody heard), "no sdpa", "not built", "no input" (a model that
            does not run on any of the inputs that are made from its configuration alone).
        eager: the largest difference from the model's own eager weights; None where it has none to compare with.
        agreed: attn_implementation="headscope" against eager: outputs, gradients, generated tokens.
    """

    kind: str
    status: str
    layers: int = 0
    heads: int = 0
    same: bool = True
    eager: float | None = None
    agreed: Agreement = Agreement()
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
    del model
    agreed = agree(kind)
    gc.collect()
    return Seen(kind, "recorded", len(recording.layers), heads, same, gap, agreed, note)


def leaves(output: Any) -> list[Tensor]:
    """Every tensor of floating point numbers in an output."""
    given = tuple(output.values()) if hasattr(output, "values") else output
    return [x for x in tree_leaves(given) if isinstance(x, Tensor) and x.is_floating_point()]


def against_eager(kind: str, recording: hs.Recording) -> tuple[float | None, str]:
    """The largest difference between recorded weights and those that the eager model returns, or is recorded with."""
    try:
        model, inputs = tiny.build(kind, "eager")
        torch.manual_seed(0)
        output = model(**inputs, output_attentions=True)
        torch.manual_seed(0)
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
