"""What is seen of one architecture: recorded, against its own eager weights; and headscope against eager."""

from __future__ import annotations

import gc
import itertools
import re
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import headscope as hs
from headscope.errors import NothingRecorded
from tests.families import tiny
from tests.families.ablated import Ablated, ablated
from tests.families.agree import Agreement, agree
from tests.families.attending import Computed, attends, not_captured

CLOSE = 2e-5
CLOSE_GRADIENTS = 1e-4
LARGEST = 150_000_000
# What counts when the share of recorded architectures is told: all that build and have attention.
ABLE = ("recorded", "in part", "missed", "failed", "no input")


class Seen(NamedTuple):
    """One line of the table.

    Attributes:
        status: "recorded"; "in part" (some modules that look like attention were not captured); "missed" (none was);
            "failed" (an error in recording or looking); "no input" (a model that does not run on any of the inputs that
            are made for it); "no attention" (a model without any); "no library" (a package that transformers asks
            for); "not built".
        how: "sdpa", or "eager" where transformers has no sdpa for it.
        given: what the model was given: text, pictures, sound, numbers.
        same: whether outputs are the same to the bit with and without recording.
        eager: the largest difference from the model's own eager weights; None where it has none to compare with.
        agreed: attn_implementation="headscope" against eager: outputs, gradients, generated tokens.
        kept: whether q and k of every layer were kept, not weights alone.
        missed: classes of modules that look like attention, ran, and were not captured.
        ablated: heads taken out with `hs.ablate` against the same ones zeroed in the model's weights.
    """

    kind: str
    status: str
    how: str = "sdpa"
    given: str = ""
    layers: int = 0
    heads: int = 0
    same: bool = True
    eager: float | None = None
    agreed: Agreement = Agreement()
    missed: tuple[str, ...] = ()
    note: str = ""
    kept: bool = False
    ablated: Ablated = Ablated()


def examine(kind: str) -> Seen:
    """Build, run, record and compare one architecture."""
    how = "sdpa"
    try:
        try:
            model, inputs = tiny.build(kind, how)
        except ValueError as error:
            if "scaled_dot_product_attention" not in str(error):
                raise
            how = "eager"
            model, inputs = tiny.build(kind, how)
    except tiny.NoInput as error:
        return Seen(kind, "no input", how, note=short(tiny.reason(error)))
    except ImportError as error:
        return Seen(kind, "no library", how, note=" ".join(re.findall(r"requires the (\S+) library", str(error))))
    except Exception as error:  # noqa: BLE001 - a library of many models says many things
        return Seen(kind, "not built", how, note=short(error))
    if sum(p.numel() for p in model.parameters()) > LARGEST:
        return Seen(kind, "not built", how, note="too large without a small configuration of its own")
    try:
        return recorded(kind, how, model, inputs)
    except Exception as error:  # noqa: BLE001 - one that fails is a line of the table too
        return Seen(kind, "failed", how, note=short(error))
    finally:
        gc.collect()


def short(error: BaseException) -> str:
    """The first line of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:100].replace("|", "/")


def recorded(kind: str, how: str, model: Any, inputs: dict[str, Any]) -> Seen:
    """Run with and without recording, and compare."""
    layers: list[Any] = []
    with torch.no_grad():
        torch.manual_seed(0)
        before = model(**inputs)
        during = None
        try:
            torch.manual_seed(0)
            with hs.record(model) as recording:
                during = model(**inputs)
            layers = recording.layers
        except NothingRecorded:
            pass
        same = all(
            torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(leaves(before), leaves(during), strict=True)
        )
        missed = not_captured(model, inputs, {layer.name for layer in layers})
        if not layers:
            status = "missed" if missed or attends(model, inputs) else "no attention"
            agreed = compared(kind) if how == "eager" and status == "missed" else Agreement()
            return Seen(kind, status, how, kinds_of(inputs), same=same, agreed=agreed, missed=missed)
        gap, note = against_eager(kind, how, layers)
    heads = sum(layer.heads for layer in layers)
    status = "in part" if missed else "recorded"
    kept = all(layer.source == "call" for layer in layers)
    out = ablated(model, inputs, layers)
    given = kinds_of(inputs)
    return Seen(kind, status, how, given, len(layers), heads, same, gap, compared(kind), missed, note, kept, out)


def compared(kind: str) -> Agreement:
    """Headscope against eager; a model that gives no gradients in evaluation says so."""
    try:
        return agree(kind)
    except AssertionError as error:
        return Agreement(note=short(error))


def kinds_of(inputs: dict[str, Any]) -> str:
    """What a model is given, in words."""
    words = {
        "text": ("input_ids",),
        "pictures": ("pixel_values", "pixel_values_videos"),
        "sound": ("input_features", "input_values", "audio_mel"),
    }
    return ", ".join(word for word, names in words.items() if not inputs.keys().isdisjoint(names)) or "numbers"


def leaves(output: Any) -> list[Tensor]:
    """Every tensor of floating point numbers in an output."""
    given = tuple(output.values()) if hasattr(output, "values") else output
    return [x for x in tree_leaves(given) if isinstance(x, Tensor) and x.is_floating_point()]


def against_eager(kind: str, how: str, layers: list[Any]) -> tuple[float | None, str]:
    """The largest difference between recorded weights and those of the eager model.

    Its own are those that it returns, and every softmax that it computes: each recorded layer is compared with the
    nearest of them, and each of those that it returns with the nearest layer.
    """
    try:
        model, inputs = tiny.build(kind, "eager")
        torch.manual_seed(0)
        asked = {"output_attentions": True} if returns_weights(model) else {}
        try:
            with Computed() as computed:
                output = model(**inputs, **asked)
        except TypeError:  # a model that cannot return them
            with Computed() as computed:
                output = model(**inputs)
    except Exception as error:  # noqa: BLE001
        return None, f"eager: {type(error).__name__}"
    named = output.items() if hasattr(output, "items") else ()
    returned = [w for name, x in named if "attentions" in name for w in tree_leaves(x) if w is not None and w.ndim >= 3]
    if any(w.isnan().all() for w in returned):
        return None, "eager itself gives nan"
    # Some return their scores under this name.
    returned = [w for w in returned if rows_of_weights(w)]
    found = [matrix(layer) for layer in layers]
    if hasattr(model.config, "attention_window"):
        returned = [from_band(w, found) for w in returned]
    gaps = [nearest(f, [*returned, *computed.weights]) for f in found]
    note = ""
    if any(g is None for g in gaps):
        note = f"{sum(g is None for g in gaps)} layers with nothing to compare"
    # Some return the means over their heads.
    means = [f.mean(1, keepdim=True).expand_as(f) for f in found]
    theirs = [min((g for f in [*found, *means] if (g := gap(w, f)) is not None), default=None) for w in returned]
    apart = sum(g is None or g > CLOSE for g in theirs)
    if how == "eager" and apart:
        note = "; ".join(filter(None, [note, f"{apart} of {len(returned)} returned weights are not recorded"]))
    known = [g for g in gaps if g is not None]
    return (max(known) if known else None), note


def rows_of_weights(x: Tensor) -> bool:
    """Whether the rows of a tensor are weights: none below zero, no row above one in sum; a sink may take a share."""
    return bool((x >= 0).all() and (x.float().sum(-1) < 1.001).all())


def returns_weights(model: Any) -> bool:
    """Whether a model takes `output_attentions`: by name, or among what it hands to its decorators."""
    names = tiny.arguments(model)
    return "output_attentions" in names or "kwargs" in names


def from_band(weights: Tensor, recorded: list[Tensor]) -> Tensor:
    """Weights that a model returns as diagonals, column `side + j - i`, as queries x keys; others as they are.

    As large as the recorded ones: the model pads its text to whole windows, and leaves the padding out of what it
    returns.
    """
    b, h, queries, diagonals = weights.shape
    sizes = [x.shape[3] for x in recorded if x.shape[:2] == (b, h) and x.shape[2] == x.shape[3] >= queries]
    if not sizes or diagonals % 2 == 0 or any(x.shape == weights.shape for x in recorded):
        return weights
    side, keys = diagonals // 2, max(sizes)
    wide = weights.new_zeros(b, h, keys, keys + 2 * side)
    columns = torch.arange(queries)[:, None] + torch.arange(diagonals)
    wide[:, :, :queries].scatter_(-1, columns.expand_as(weights), weights)
    return wide[..., side : side + keys]


def nearest(one: Tensor, others: list[Tensor]) -> float | None:
    """The smallest difference from a tensor with as many numbers, and as many keys, whatever its leading axes."""
    gaps = [gap(other, one) for other in others if other.numel() == one.numel()]
    return min((g for g in gaps if g is not None), default=None)


def matrix(layer: Any) -> Tensor:
    """The weights of a whole layer, `(b, h, q, k)`."""
    return torch.stack(
        [torch.stack([layer.head(head, item).weights() for head in range(layer.heads)]) for item in range(layer.items)]
    )


def gap(theirs: Tensor, mine: Tensor) -> float | None:
    """The largest difference, on queries that may see something; in whatever order the leading axes stand."""
    keys, last = mine.shape[-1], (theirs.ndim - 2, theirs.ndim - 1)
    rows = mine.reshape(-1, keys).float()
    found = []
    alike = theirs.shape[-1] == keys and theirs.numel() == mine.numel()
    for order in itertools.permutations(range(theirs.ndim - 2)) if alike else ():
        x = theirs.permute(*order, *last).reshape(-1, keys).float()
        seen = (rows.sum(-1) > 0) & (x.sum(-1) > 0)
        if seen.any():
            found.append(float((x - rows).abs().amax(-1)[seen].max()))
    return min(found, default=None)
