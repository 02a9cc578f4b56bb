"""What is seen of one architecture: recorded on sdpa, against its own eager weights; and headscope against eager."""

from __future__ import annotations

import gc
import re
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import headscope as hs
from headscope.errors import NothingRecorded
from tests.families import tiny
from tests.families.agree import Agreement, agree

CLOSE = 2e-5
CLOSE_GRADIENTS = 1e-4
LARGEST = 40_000_000
# What counts when the share of recorded architectures is told: all that build, support sdpa and have attention.
ABLE = ("recorded", "missed", "failed", "no input")


class Seen(NamedTuple):
    """One line of the table.

    Attributes:
        status: "recorded"; "missed" (attention that nobody heard); "failed" (an error in recording or looking); "no
            input" (a model that does not run on any of the inputs that are made for it); "no attention" (a model
            without any); "no sdpa"; "no library" (a package that transformers asks for); "not built".
        given: what the model was given: text, pictures, sound, numbers.
        eager: the largest difference from the model's own eager weights; None where it has none to compare with.
        agreed: attn_implementation="headscope" against eager: outputs, gradients, generated tokens.
    """

    kind: str
    status: str
    given: str = ""
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
    except tiny.NoInput as error:
        return Seen(kind, "no input", note=short(tiny.reason(error)))
    except ImportError as error:
        return Seen(kind, "no library", note=" ".join(re.findall(r"requires the (\S+) library", str(error))))
    except Exception as error:  # noqa: BLE001 - a library of many models says many things
        without = "scaled_dot_product_attention" in str(error)
        return Seen(kind, "no sdpa") if without else Seen(kind, "not built", note=short(error))
    if sum(p.numel() for p in model.parameters()) > LARGEST:
        return Seen(kind, "not built", note="too large without a small configuration of its own")
    try:
        return recorded(kind, model, inputs)
    except Exception as error:  # noqa: BLE001 - one that fails is a line of the table too
        return Seen(kind, "failed", note=short(error))
    finally:
        gc.collect()


def short(error: BaseException) -> str:
    """The first line of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:100].replace("|", "/")


def recorded(kind: str, model: Any, inputs: dict[str, Any]) -> Seen:
    """Run with and without recording, and compare."""
    with torch.no_grad():
        torch.manual_seed(0)
        before = model(**inputs)
        try:
            torch.manual_seed(0)
            with hs.record(model) as recording:
                during = model(**inputs)
        except NothingRecorded as error:
            if not attends(model, inputs):
                return Seen(kind, "no attention")
            return Seen(kind, "missed", note=short(error))
        same = all(
            torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(leaves(before), leaves(during), strict=True)
        )
        heads = sum(layer.heads for layer in recording.layers)
        gap, note = against_eager(kind, recording)
    return Seen(kind, "recorded", kinds_of(inputs), len(recording.layers), heads, same, gap, agree(kind), note)


def kinds_of(inputs: dict[str, Any]) -> str:
    """What a model is given, in words."""
    words = {
        "text": ("input_ids",),
        "pictures": ("pixel_values", "pixel_values_videos"),
        "sound": ("input_features", "input_values", "audio_mel"),
    }
    return ", ".join(word for word, names in words.items() if not inputs.keys().isdisjoint(names)) or "numbers"


class Softmaxes(TorchDispatchMode):
    """Counts what may be attention: fused kernels, and every softmax over the last axis of a matrix for each head."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        self.count += "scaled_dot_product" in name or ("softmax" in name and args[0].ndim >= 3)
        return func(*args, **(kwargs or {}))


def attends(model: Any, inputs: dict[str, Any]) -> bool:
    """Whether anything in a model may be attention, seen without headscope."""
    with Softmaxes() as seen:
        model(**inputs)
    return seen.count > 0


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
    if any(w.isnan().all() for w in weights):
        return None, "eager itself gives nan"
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
