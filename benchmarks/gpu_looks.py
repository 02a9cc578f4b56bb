"""The looks, for `gpu.py`: all statistics at once over the forward of the same heads, and the memory they take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

import headscope as hs
from gpu_rows import Place, Run, with_kernel
from headscope.attention.request import Request
from headscope.look.kernels.ask import Ask
from headscope.look.kernels.stream import stream


def every_statistic(cell: int) -> Ask:
    """All that one pass can find."""
    return Ask(
        entropy=True, concentration=True, received=True, top=16, mean_map=True, max_map=True, peak=True,
        cells=(cell, cell),
    )  # fmt: skip


def look_rows(run: Run) -> None:
    """All statistics at once, over the forward of the same heads; and the memory they take."""
    place = run.place
    n, d, heads = place.size(32768, 37), place.size(128, 16), place.size(16, 2)
    for name, mask in (("causal", hs.causal()), ("full", None)):
        q, k, v = place.inputs(1, heads, heads, n, n, d)
        done = float(hs.plan(q, k, v, mask=mask).flops)
        case, ask = f"looks, {name}, {n} x {d}", every_statistic(place.size(128, 5))
        flash = partial(with_kernel, SDPBackend.FLASH_ATTENTION, mask is not None, q, k, v)
        run.add(case, "SDPA flash", "forward", flash, done, "TFLOP/s")
        request = asked_of(place, q, k, v, mask)
        proof = partial(check_statistics, request, ask)
        run.add(case, "all statistics", "lse and pass", partial(stream, request, ask), done, "TFLOP/s", proof=proof)
    memory_row(run)


def asked_of(place: Place, q: Tensor, k: Tensor, v: Tensor, mask: hs.Mask | None) -> Request:
    """The call that the statistics are of; dry, as on a GPU, so that the interpreter runs its pass."""
    request = Request(q, k, v, mask)
    if place.dry:
        request.device = request.device._replace(kind="cuda")
    return request


def check_statistics(request: Request, ask: Ask) -> None:
    """Raise unless the statistics of the last query, and the sums over all, are those of the float64 weights."""
    seen = stream(request, ask)
    q, k = request.q[:, :, -1:].double(), request.k.double()
    weights = torch.softmax(q @ k.mT * request.scale, -1)[:, :, 0]
    for name, found, expected in (
        ("entropy", seen.entropy, torch.special.entr(weights).sum(-1)),
        ("concentration", seen.concentration, weights.square().sum(-1)),
        ("largest weight", seen.peak, weights.amax(-1)),
    ):
        assert found is not None
        error = float((found[:, :, -1].double() - expected).abs().max())
        if not error <= 0.02 * max(1.0, float(expected.abs().max())):
            raise AssertionError(f"{name} differs from the formula by {error:.2g}")
    assert seen.received is not None
    total = float(seen.received.double().sum() / seen.received.shape[:2].numel() / request.q.shape[2])
    if abs(total - 1) > 0.01:
        raise AssertionError(f"what the keys receive sums to {total:.4f} for each query instead of 1")


def memory_row(run: Run) -> None:
    """What all statistics of a long sequence need beyond their results."""
    place, case = run.place, "looks, 131072 tokens, 32 heads"
    if not run.wants(f"{case} all statistics memory"):
        return
    n, heads, d = place.size(131072, 37), place.size(32, 2), place.size(64, 16)
    q, k, v = place.inputs(1, heads, heads, n, n, d)
    used = peak_memory(
        place, lambda: stream(asked_of(place, q, k, v, hs.causal()), every_statistic(place.size(512, 5)))
    )
    made, most = used
    share, results = (most - made) / (2 * n**2), made / (2 * n**2)
    note = f"{share:.2%} of one head's N² in bf16, beside results of {results:.2%}"
    run.note(case, "all statistics", "memory", note)


def peak_memory(place: Place, work: Callable[[], object]) -> tuple[int, int]:
    """Bytes that the results of some work take, and the most that was taken while it ran."""
    if place.device != "cuda":
        work()
        return 0, 0
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = work()
    place.wait()
    made = torch.cuda.memory_allocated() - before
    del results
    return made, torch.cuda.max_memory_allocated() - before
