"""Which path runs a request, why, and why the others do not."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from types import ModuleType

import torch

from headscope.attention import gpu_order
from headscope.attention.known import known
from headscope.attention.paths import flex, formula, fused, tiled, triton
from headscope.attention.request import Request
from headscope.attention.torch_kernel import torch_kernel
from headscope.errors import BackendRefused

PATHS: dict[str, ModuleType] = {path.NAME: path for path in (fused, tiled, triton, flex, formula)}


@dataclass(frozen=True)
class Plan:
    """Who runs a call of `attend`, why, and what it costs; prints as a short report.

    Attributes:
        backend: the name of the path that runs.
        why: the reason in a sentence.
        refusals: for every path its reasons to refuse; an empty list when it could run.
        flops: multiplications and additions of the forward, for the pairs of query and key that the mask allows (all
            pairs, where the numbers of the mask are not known).
        bytes: bytes that the inputs and the output occupy.
    """

    backend: str
    why: str
    refusals: dict[str, list[str]]
    flops: int
    bytes: int

    def __str__(self) -> str:
        lines = [
            f"{self.backend}: {self.why}",
            f"{self.flops / 1e9:.3g} GFLOP, {self.bytes / 1e6:.3g} MB of inputs and output",
        ]
        for name, reasons in self.refusals.items():
            if name != self.backend:
                lines.append(f"{name}: " + ("; ".join(reasons) if reasons else "could run"))
        return "\n".join(lines)


def choose(request: Request, backend: str | None = None) -> tuple[ModuleType, str]:
    """The path that runs a request and the reason.

    Raises:
        BackendRefused: no path has that name, the one that was asked for cannot run this, or none can.
    """
    if backend is not None:
        return named(request, backend), "it was asked for by name"
    if blocked := formula.refusals(request):
        raise BackendRefused(f"{request.where}: no backend can run this: {'; '.join(blocked)}.")
    if not known(request.q):
        return without_numbers(request)
    if request.device.kind != "cpu":
        return gpu_order.choose(request, request.device)
    reasons = fused.refusals(request)
    if not reasons and request.is_plain:
        return fused, "torch's fused kernel runs it as it is"
    if not reasons and request.q.shape[2] == 1 and request.mask is not None:
        return fused, "one query reads the keys that it may see"
    if not reasons and request.mask is None:
        return fused, "torch's fused kernel runs it, with the mask written out"
    refused = tiled.refusals(request)
    if reasons:
        return (formula, "; ".join(reasons + refused)) if refused else (tiled, "; ".join(reasons))
    if refused:
        return fused, "; ".join(refused)
    return by_cost(request)


def without_numbers(request: Request) -> tuple[ModuleType, str]:
    """The path where numbers are not known: in a traced graph, under transforms, in tensors without storage.

    How much a mask leaves cannot be asked there. On a GPU the operator of the Triton kernel runs what the kernel itself
    would run. Elsewhere a mask that is small for certain is written out from comparisons, one that exists as a tensor
    is taken as it is, any other call runs on the operator of the tiles, and what that refuses on the formula.
    """
    if request.device.kind == "cuda" and gpu_order.kind_of(request) == "structured" and not triton.refusals(request):
        return triton, gpu_order.REASONS["structured"]
    reasons = fused.refusals(request)
    if request.is_plain and not reasons:
        return fused, "torch's fused kernel runs it as it is"
    refused = tiled.refusals(request)
    if not reasons:
        if request.mask is None or refused or small(request.q.shape[2] * request.k.shape[2]):
            return fused, "the mask is small enough to be written out"
        if request.mask.is_written:
            return fused, "the mask is written out already"
        return tiled, "the mask may be large, and its numbers are not known"
    return (formula, "; ".join(reasons + refused)) if refused else (tiled, "; ".join(reasons))


def small(pairs: int | torch.SymInt) -> bool:
    """Whether so many pairs are few enough to be written out, at every length that a graph will be used for."""
    if isinstance(pairs, int) and not torch.compiler.is_compiling():
        return pairs <= WRITTEN_OUT
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    # Compared without asking: a question would fix the graph to one side of the limit.
    return bool(statically_known_true(pairs <= WRITTEN_OUT))


def run(request: Request, backend: str | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Values and lse of a request, where it runs best; an out-of-memory stays torch's own and says what it was for."""
    if backend is None:
        request = request.for_last_query()
    path = choose(request, backend)[0]
    if torch.compiler.is_compiling():
        # torch.compile does not trace what adds notes to errors.
        return path.run(request)  # type: ignore[no-any-return]
    try:
        return path.run(request)  # type: ignore[no-any-return]
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            plan = describe(request, backend)
            error.add_note(
                f"hs.attend ran this on {plan.backend!r}; its inputs and output take {plan.bytes / 1e6:,.1f} MB"
                + (", and that path writes the queries x keys matrix out." if path is formula else ".")
            )
        raise


# Pairs of query and key up to which a traced graph writes its mask out.
WRITTEN_OUT = 2**20
# What one tile costs besides its products, in query-key pairs of 64 features: some 40 microseconds on a CPU.
TILE_COST = 50_000
# A written-out mask makes every pair of the fused kernel dearer by about this.
MASK_COST = 1.15


def by_cost(request: Request) -> tuple[ModuleType, str]:
    """Tiles of what the mask leaves, or the whole square with the mask written out: whichever is less work."""
    b, h, q, d = request.q.shape
    k = request.k.shape[2]
    pairs = b * h * q * k
    if few(pairs, d):
        return fused, "there are fewer pairs of query and key than one tile costs"
    tiles = tiled.of(request)
    work = tiles.area + tiles.tiles * tile_cost(d)
    share = f"{tiles.area / max(pairs, 1):.1%} of all pairs of query and key in {tiles.tiles} tiles"
    if work < MASK_COST * pairs:
        return tiled, f"the mask leaves {share}"
    return fused, f"tiles would save too little: {share}"


def few(pairs: int, d: int) -> bool:
    """Whether a single tile costs more than all pairs of query and key with the mask written out."""
    return MASK_COST * pairs <= tile_cost(d)


def tile_cost(d: int) -> int:
    """What a tile costs besides its products, in pairs of query and key with so many features."""
    return TILE_COST * 64 // max(d, 1)


def named(request: Request, backend: str) -> ModuleType:
    """The path of that name, if it can run the request."""
    if backend not in PATHS:
        near = difflib.get_close_matches(str(backend), PATHS, 1)
        raise BackendRefused(
            f"{request.where}: there is no backend {backend!r}{f'; did you mean {near[0]!r}?' if near else '.'} "
            f"The backends are {', '.join(map(repr, PATHS))}; None picks one."
        )
    path = PATHS[backend]
    reasons = path.refusals(request)
    if reasons:
        raise BackendRefused(
            f"{request.where}: backend {backend!r} cannot run this: {'; '.join(reasons)}. "
            "Use backend=None to let headscope pick, or change what it names."
        )
    return path


def describe(request: Request, backend: str | None) -> Plan:
    """The plan of a request."""
    path, why = choose(request.for_last_query() if backend is None else request, backend)
    if path is fused and request.device.kind == "cuda" and (kernel := torch_kernel(request)) is not None:
        why = f"{why} ({kernel})"
    b, h, q, d = request.q.shape
    k, e = request.v.shape[2:]
    runs = request.runs()
    # Where the numbers of a mask are not known, all pairs are the bound.
    counted = runs is not None and known(request.q, runs.start)
    pairs = int(runs.counts().expand(b, h, q).sum()) if runs is not None and counted else b * h * q * k
    tensors = (request.q, request.k, request.v)
    moved = sum(t.numel() * t.element_size() for t in tensors) + b * h * q * e * request.q.element_size()
    return Plan(path.NAME, why, {name: p.refusals(request) for name, p in PATHS.items()}, 2 * pairs * (d + e), moved)
