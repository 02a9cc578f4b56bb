"""What does attention cost on this GPU, on every path, and what do the looks and a recording cost beside it?

    python benchmarks/gpu.py [--minutes 8] [--only decode] [--output results.json]

One command. Every row's numbers are checked against the float64 formula on some queries before it is timed; a row that
fails its check or cannot run says so in its place. The rates of a matrix product and of a copy, measured in the same
run, stand beside the rows. The most important rows come first; those for which there are no minutes left are named.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

import headscope as hs
from headscope.attention.equation import attention
from headscope.attention.request import Request
from headscope.look.kernels.ask import Ask
from headscope.look.kernels.stream import stream
from timing import RESULTS, machine

NO_GPU = "benchmarks/gpu.py needs an NVIDIA GPU and a torch built for CUDA; torch.cuda.is_available() is False here."
# Queries of each call that are compared with the formula.
CHECKED = 24
TORCH = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


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
    rows: list[Row] = field(default_factory=list)
    clock: Callable[[], float] = time.monotonic

    def add(
        self, case: str, path: str, direction: str, work: Callable[[], object], work_done: float, unit: str
    ) -> None:
        """Time a piece of work; what fails is a row with the reason."""
        if self.only not in f"{case} {path} {direction}":
            return
        if self.clock() > self.until:
            self.note(case, path, direction, "no time left")
            return
        try:
            seconds = timed(work)
        except (RuntimeError, ValueError, AssertionError) as error:
            self.note(case, path, direction, f"{type(error).__name__}: {str(error).splitlines()[0][:120]}")
            torch.cuda.empty_cache()
            return
        self.rows.append(Row(case, path, direction, seconds * 1e3, work_done / seconds / 1e12, unit))
        print(self.rows[-1], flush=True)

    def note(self, case: str, path: str, direction: str, note: str) -> None:
        """A row without a time."""
        self.rows.append(Row(case, path, direction, None, note=note))
        print(self.rows[-1], flush=True)


def timed(work: Callable[[], object], seconds: float = 0.15) -> float:
    """The median time of a call in seconds, from events on the GPU; the first calls compile and are not counted."""
    for _ in range(2):
        work()
    torch.cuda.synchronize()
    times: list[float] = []
    begin = time.monotonic()
    while len(times) < 3 or (time.monotonic() - begin < seconds and len(times) < 200):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        work()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1e3)
    return sorted(times)[len(times) // 2]


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
        some = q[one, :, rows.to(q.device)].double()
        expected, _ = attention(
            some,
            k[one].double(),
            v[one].double(),
            bias,
            None,
            scale=request.scale,
            softcap=request.softcap,
            allowed=seen,
        )
        error = float((found[one, :, rows.to(q.device)].double() - expected).abs().max())
        if not error <= limit * max(1.0, float(expected.abs().max())):
            raise AssertionError(f"values differ from the formula by {error:.2g}")


def inputs(b: int, h: int, g: int, q: int, k: int, d: int, *, grad: bool = False) -> list[Tensor]:
    """Random q, k and v in bfloat16."""
    torch.manual_seed(0)
    sizes = (b, h, q, d), (b, g, k, d), (b, g, k, d)
    return [torch.randn(s, device="cuda", dtype=torch.bfloat16).requires_grad_(grad) for s in sizes]


def cases(n: int, heads: int, batch: int) -> dict[str, dict[str, Any]]:
    """What attention is asked for, by name."""
    return {
        "plain": {},
        "causal": {"mask": hs.causal()},
        "window 1024": {"mask": hs.window(1023)},
        "16 documents": {"mask": hs.causal() & hs.documents([n // 16] * 16)},
        "padding 50 %": {"mask": hs.padding([n // 4 + (n // 2) * item // max(batch - 1, 1) for item in range(batch)])},
        "softcap": {"mask": hs.causal(), "softcap": 30.0},
        "ALiBi": {"mask": hs.causal(), "bias": hs.alibi(heads)},
    }


def paths(case: str, options: dict[str, Any], n: int) -> Iterator[tuple[str, Attention]]:
    """Who can run a case: torch's kernels, headscope's own kernel, what headscope picks, and FlexAttention."""
    if case in ("plain", "causal"):
        for name, kernel in TORCH.items():
            yield f"SDPA {name}", partial(with_kernel, kernel, case == "causal")
    elif case in ("window 1024", "16 documents", "padding 50 %") and n <= 32768:
        mask = options["mask"].to_dense(n, n, "cuda")
        yield "SDPA + dense mask", lambda q, k, v: sdpa(q, k, v, attn_mask=mask)
    yield "headscope", partial(hs.attend, **options)
    yield "headscope triton", partial(hs.attend, backend="triton", **options)
    if case not in ("plain", "causal"):
        yield "FlexAttention", partial(hs.attend, backend="flex", **options)


def with_kernel(kernel: SDPBackend, causal: bool, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Torch's attention on one of its kernels."""
    with sdpa_kernel(kernel):
        return sdpa(q, k, v, is_causal=causal)


def attention_rows(run: Run, n: int, d: int, only: tuple[str, ...] = ()) -> None:
    """All paths of all cases at one length and head size, forward and backward."""
    heads, batch = 16, max(1, 65536 // n)
    for case, options in cases(n, heads, batch).items():
        if only and case not in only:
            continue
        q, k, v = inputs(batch, heads, heads, n, n, d, grad=True)
        pairs = hs.plan(q, k, v, **options).flops / (4 * d)
        name = f"{case}, {n} x {d}"
        for path, call in paths(case, options, n):
            compared = {key: value for key, value in options.items() if key != "backend"}

            def forward(call: Attention = call) -> Tensor:
                with torch.no_grad():
                    return call(q, k, v)  # noqa: B023

            def both(call: Attention = call) -> object:
                values = call(q, k, v)  # noqa: B023
                return torch.autograd.grad(values, (q, k, v), values.detach())  # noqa: B023

            try:
                if run.clock() <= run.until and run.only in f"{name} {path}":
                    check(forward(), q.detach(), k.detach(), v.detach(), compared)
            except (RuntimeError, ValueError, AssertionError) as error:
                run.note(name, path, "forward", f"{type(error).__name__}: {str(error).splitlines()[0][:120]}")
                continue
            run.add(name, path, "forward", forward, 4 * pairs * d, "TFLOP/s")
            run.add(name, path, "forward + backward", both, 14 * pairs * d, "TFLOP/s")


def limits(run: Run) -> None:
    """What the machine can do at most: a matrix product, and a copy."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    big = torch.empty(2**30, device="cuda", dtype=torch.bfloat16)
    run.add("limits", "matrix product", "8192³, bf16", lambda: a @ a, 2 * 8192**3, "TFLOP/s")
    run.add("limits", "copy", "2 GB, read and written", big.clone, 4 * 2**30, "TB/s")


def decode_rows(run: Run) -> None:
    """One new query of 32 heads on 8, against 128k keys."""
    for batch in (1, 16):
        q, k, v = inputs(batch, 32, 8, 1, 131072, 128)
        moved = 2.0 * (k.numel() + v.numel())
        mask = hs.padding([131072] * batch)
        calls: dict[str, Callable[..., Tensor]] = {
            "SDPA": partial(sdpa, enable_gqa=True),
            "headscope": hs.attend,
            "headscope triton": partial(hs.attend, backend="triton"),
            "headscope, padded": partial(hs.attend, mask=mask),
        }
        for path, call in calls.items():
            run.add(f"decode, batch {batch}", path, "forward", partial(call, q, k, v), moved, "TB/s")


def look_rows(run: Run) -> None:
    """All statistics at once, over the forward of the same heads; and the memory they take."""
    for name, mask in (("causal", hs.causal()), ("full", None)):
        q, k, v = inputs(1, 16, 16, 32768, 32768, 128)
        pairs = hs.plan(q, k, v, mask=mask).flops / 512
        ask = Ask(
            entropy=True,
            concentration=True,
            received=True,
            top=16,
            mean_map=True,
            max_map=True,
            peak=True,
            cells=(128, 128),
        )
        flash = partial(with_kernel, SDPBackend.FLASH_ATTENTION, mask is not None, q, k, v)
        run.add(f"looks, {name}, 32768 x 128", "SDPA flash", "forward", flash, 512 * pairs, "TFLOP/s")
        request = Request(q, k, v, mask)
        run.add(
            f"looks, {name}, 32768 x 128",
            "all statistics",
            "lse and pass",
            partial(stream, request, ask),
            512 * pairs,
            "TFLOP/s",
        )
    q, k, v = inputs(1, 32, 32, 131072, 131072, 64)
    ask = Ask(
        entropy=True,
        concentration=True,
        received=True,
        top=16,
        mean_map=True,
        max_map=True,
        peak=True,
        cells=(512, 512),
    )
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    if run.only in "looks memory" and run.clock() <= run.until:
        stream(Request(q, k, v, hs.causal()), ask)
        share = (torch.cuda.max_memory_allocated() - before) / (2 * 131072**2)
        run.note("looks, 131072 tokens, 32 heads", "all statistics", "memory", f"{share:.2%} of one head's N² in bf16")


def length_rows(run: Run) -> None:
    """Fifty lengths in a row, padded batch, training step: nothing compiles after the first."""
    if run.only not in "50 lengths" or run.clock() > run.until:
        return
    times = []
    for n in range(1000, 1000 + 50 * 37, 37):
        q, k, v = inputs(4, 8, 8, n, n, 64, grad=True)
        torch.cuda.synchronize()
        begin = time.monotonic()
        values = hs.attend(q, k, v, mask=hs.padding([n, n // 2, n // 3, n]))
        torch.autograd.grad(values.sum(), (q, k, v))
        torch.cuda.synchronize()
        times.append(time.monotonic() - begin)
    rest = sorted(times[1:])
    run.note(
        "50 lengths", "headscope", "training step", f"first {times[0]:.3f} s, then at most {rest[-1] * 1e3:.1f} ms"
    )


def record_rows(run: Run) -> None:
    """A forward of a small model, without and within `hs.record`."""
    made = torch.nn.TransformerEncoderLayer(1024, 16, 4096, batch_first=True)
    model = torch.nn.TransformerEncoder(made, 4, enable_nested_tensor=False).cuda().bfloat16().train()
    x = torch.randn(2, 2048, 1024, device="cuda", dtype=torch.bfloat16)
    for path, within in (("bare", nullcontext), ("recorded", partial(hs.record, model))):

        def forward(within: Callable[[], Any] = within) -> object:
            with torch.no_grad(), within():
                return model(x)

        run.add("recording, 4 layers, 2 x 2048", path, "forward", forward, 0.0, "")


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=7.5, help="when to stop beginning new rows")
    parser.add_argument("--only", default="", help="run the rows whose name contains this")
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu-cuda.json", help="where the JSON goes")
    asked = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    run = Run(time.monotonic() + 60 * asked.minutes, asked.only)
    print("| case | path | direction | median | rate | note |\n|---|---|---|---:|---:|---|")
    for step in steps():
        step(run)
        torch.cuda.empty_cache()
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine("cuda"), "rows": [asdict(row) for row in run.rows]}
    asked.output.write_text(json.dumps(content, indent=1) + "\n")
    return 0


def steps() -> list[Callable[[Run], None]]:
    """Everything that is measured, what matters most first."""
    structured = "window 1024", "16 documents", "padding 50 %"
    first: list[Callable[[Run], None]] = [
        limits,
        partial(attention_rows, n=32768, d=128, only=("plain", "causal")),
        partial(attention_rows, n=32768, d=128, only=structured),
        look_rows,
        decode_rows,
        length_rows,
        record_rows,
    ]
    return first + [partial(attention_rows, n=n, d=d) for n in (8192, 2048, 131072, 32768) for d in (128, 64)]


if __name__ == "__main__":
    sys.exit(main())
