"""What the rows of `gpu.py` share: where they run, how they are timed, and how their numbers are checked first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

from headscope.attention.equation import attention
from headscope.attention.request import Request

# Queries of each call that are compared with the formula.
CHECKED = 24


@dataclass(frozen=True)
class Place:
    """Where the rows run: a GPU; or, dry, the CPU, in Triton's interpreter and in tiny sizes that say nothing of speed.

    Attributes:
        dtype: the interpreter has no bfloat16.
    """

    device: str = "cuda"
    dtype: torch.dtype = torch.bfloat16
    dry: bool = False

    def size(self, wanted: int, tiny: int) -> int:
        """A size, or the one that stands for it in a dry run."""
        return tiny if self.dry else wanted

    def wait(self) -> None:
        """Until the GPU has done everything."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def timed(self, work: Callable[[], object], seconds: float = 0.15) -> float:
        """The median time of a call in seconds; the first calls compile and are not counted."""
        for _ in range(1 if self.dry else 2):
            work()
        self.wait()
        times: list[float] = []
        begin = time.monotonic()
        while len(times) < self.size(3, 1) or (
            not self.dry and time.monotonic() - begin < seconds and len(times) < 200
        ):
            times.append(self.once(work))
        return sorted(times)[len(times) // 2]

    def once(self, work: Callable[[], object]) -> float:
        """The time of one call, from events on the GPU."""
        if self.device != "cuda":
            begin = time.perf_counter()
            work()
            return time.perf_counter() - begin
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        work()
        stop.record()
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1e3

    def empty_cache(self) -> None:
        """Give freed memory back, so that one row's does not hinder the next."""
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def inputs(self, b: int, h: int, g: int, q: int, k: int, d: int, *, grad: bool = False) -> list[Tensor]:
        """Random q, k and v."""
        torch.manual_seed(0)
        sizes = (b, h, q, d), (b, g, k, d), (b, g, k, d)
        return [torch.randn(s, device=self.device, dtype=self.dtype).requires_grad_(grad) for s in sizes]


DRY = Place("cpu", torch.float32, dry=True)


@dataclass(frozen=True)
class Row:
    """One thing measured: its time, and its rate in the unit that limits it."""

    case: str
    path: str
    direction: str
    milliseconds: float | None
    rate: float | None = None
    unit: str = ""
    note: str = ""

    def __str__(self) -> str:
        spent = "" if self.milliseconds is None else f"{self.milliseconds:.3f} ms"
        rate = "" if self.rate is None else f"{self.rate:.1f} {self.unit}"
        return f"| {self.case} | {self.path} | {self.direction} | {spent} | {rate} | {self.note} |"


@dataclass
class Run:
    """The rows so far, and the minutes that are left for more."""

    until: float
    only: str = ""
    place: Place = Place()
    rows: list[Row] = field(default_factory=list)
    clock: Callable[[], float] = time.monotonic

    def wants(self, name: str) -> bool:
        """Whether a row is asked for and there is time for it."""
        return self.only in name and self.clock() <= self.until

    def add(
        self,
        case: str,
        path: str,
        direction: str,
        work: Callable[[], object],
        work_done: float,
        unit: str,
        proof: Callable[[], object] | None = None,
    ) -> None:
        """Time a piece of work, after its proof; what fails is a row with the reason."""
        if self.only not in f"{case} {path} {direction}":
            return
        if self.clock() > self.until:
            self.note(case, path, direction, "no time left")
            return
        try:
            if proof is not None:
                proof()
            seconds = self.place.timed(work)
        # Whatever one path of one version raises must not end the measurement of the others.
        except Exception as error:  # noqa: BLE001
            self.note(case, path, direction, reason(error))
            self.place.empty_cache()
            return
        rate = work_done / seconds / 1e12 if unit else None
        self.rows.append(Row(case, path, direction, seconds * 1e3, rate, unit))
        print(self.rows[-1], flush=True)

    def note(self, case: str, path: str, direction: str, note: str) -> None:
        """A row without a time."""
        self.rows.append(Row(case, path, direction, None, note=note))
        print(self.rows[-1], flush=True)


def reason(error: Exception) -> str:
    """An error as a cell of the table."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:120]}".replace("|", "/")


def check(found: Tensor, q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any], limit: float = 0.02) -> None:
    """Raise unless some queries of a result are what the float64 formula says."""
    queries, keys = q.shape[2], k.shape[2]
    rows = torch.linspace(0, queries - 1, min(CHECKED, queries)).long()
    request = Request(q, k, v, **options)
    runs, bias = request.runs(), None
    allowed = None
    if runs is not None:
        start, stop = (side if side.shape[2] == 1 else side[:, :, rows.to(side.device)] for side in runs)
        key = torch.arange(keys, device=q.device)
        allowed = ((key >= start[..., None]) & (key < stop[..., None])).any(3)
    if request.bias is not None:
        parts = [request.bias.block(slice(int(i), int(i) + 1), 0, keys, queries, keys) for i in rows]
        bias = torch.cat(parts, dim=2).to(q.device, torch.float64)
    for item in range(len(q)):
        one = slice(item, item + 1)
        seen = None if allowed is None else (allowed if len(allowed) == 1 else allowed[one])
        expected, _ = attention(
            q[one, :, rows.to(q.device)].double(), k[one].double(), v[one].double(), bias, None,
            scale=request.scale, softcap=request.softcap, allowed=seen,
        )  # fmt: skip
        error = float((found[one, :, rows.to(q.device)].double() - expected).abs().max())
        if not error <= limit * max(1.0, float(expected.abs().max())):
            raise AssertionError(f"values differ from the formula by {error:.2g}")


def with_kernel(kernel: SDPBackend, causal: bool, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Torch's attention on one of its kernels."""
    with sdpa_kernel(kernel):
        return sdpa(q, k, v, is_causal=causal)
