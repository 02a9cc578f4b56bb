"""What every head of a layer does, in a few numbers: sums over queries and how many, so that texts can be added up."""

from __future__ import annotations

import torch
from torch import Tensor

from headscope.attention.request import Request
from headscope.look import copies
from headscope.look.axis import Axis
from headscope.look.functions import project
from headscope.look.kernels.diagonals import band_sums
from headscope.look.kernels.gather import chosen
from headscope.look.kernels.stream import Ask, stream
from headscope.look.real import real_rows, same_positions

# For each measure what it is the mean of. These are the columns of the table of heads.
MEASURES = {
    "entropy": "-Σ p log p of a query, in nats",
    "concentration": "Σ p² of a query",
    "confidence": "the largest weight of a query, special queries and keys left out",
    "previous": "the weight on the key before the own position",
    "self": "the weight on the own position",
    "next": "the weight on the key after the own position",
    "first": "the weight on the first key",
    "special": "the weight on special keys",
    "duplicate": "the weight on earlier copies of the own token, where there are any",
    "induction": "the weight on what came after them",
}

Sums = dict[str, tuple[Tensor, float]]


def measures(request: Request, queries: Axis, keys: Axis) -> Sums:
    """For each measure its sum over the queries for every head, `(h,)` in float64, and over how many queries.

    Padding is left out: queries that may see nothing, and those whose own key nobody may see. A measure that means
    nothing here (an offset between two sequences, copies of patches) is left out as well.

    Args:
        request: one batch item, all heads of a layer.
    """
    same = same_positions(queries, keys)
    rows = real_rows(request.runs(), queries.length, keys.length, same).to(request.q.device)
    special = torch.tensor(keys.special, dtype=torch.bool)
    ask = Ask(entropy=True, concentration=True, peak=True, leave_out=special.nonzero()[:, 0])
    seen = stream(request, ask)
    assert seen.entropy is not None
    assert seen.concentration is not None
    assert seen.peak is not None
    found: Sums = {}

    def add(name: str, values: Tensor, counted: Tensor) -> None:
        kept = torch.where(counted.to(values.device), values.double(), 0.0)
        found[name] = kept.sum(-1).cpu(), float(counted.sum())

    add("entropy", seen.entropy[0], rows)
    add("concentration", seen.concentration[0], rows)
    add("confidence", seen.peak[0], rows & ~torch.tensor(queries.special, device=rows.device))
    if same:
        sums, counts = band_sums(request, 1, seen.lse, rows)
        for offset, name in enumerate(("previous", "self", "next")):
            found[name] = sums[0, :, offset].double().cpu(), float(counts[offset])
    everyone = torch.arange(request.q.shape[2])
    if request.k.shape[2]:
        add("first", chosen(request, seen.lse, everyone, torch.tensor([0]))[0, ..., 0], rows)
    if keys.kind != "positions":
        add("special", mass_on(request, special), rows)
    if same and keys.kind == "tokens":
        own = copies.identities(queries), copies.identities(keys)
        repeated = copies.has_copy(*own).to(rows.device) & rows
        for after, name in enumerate(("duplicate", "induction")):
            if repeated.any():
                mass = copies.mass(lambda r, c: chosen(request, seen.lse, r, c)[0], *own, seen.lse[0], after=after)
                add(name, mass, repeated)
            else:
                found[name] = torch.zeros(request.q.shape[1], dtype=torch.float64), 0.0
    return found


def mass_on(request: Request, which: Tensor) -> Tensor:
    """The weight of every query on some keys together, `(h, q)`."""
    W = which.to(request.q.device).float()[:, None]
    options = {name: getattr(request, name) for name in ("mask", "bias", "scale", "softcap", "sinks")}
    return project(request.q.detach(), request.k.detach(), W, **options)[0, ..., 0]
