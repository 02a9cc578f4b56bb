"""What does attention cost on this GPU, on every path, and what do the looks and a recording cost beside it?

    python benchmarks/gpu.py [--minutes 7] [--only decode] [--output results.json]
    python benchmarks/gpu.py --dry

One command. Every row's numbers are checked against the float64 formula on some queries before it is timed; a row that
fails its check or cannot run says so in its place. The rates of a matrix product and of a copy, measured in the same
run, stand beside the rows. The most important rows come first; those for which there are no minutes left are named.
The JSON is written after every step. `--dry` runs every step without a GPU, in Triton's interpreter, in tiny sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

import headscope as hs
from gpu_rows import DRY, Place, Run, check, reason
from headscope.attention.request import Request
from headscope.look.kernels.ask import Ask
from headscope.look.kernels.stream import stream
from timing import RESULTS, machine

NO_GPU = "benchmarks/gpu.py needs an NVIDIA GPU and a torch built for CUDA; torch.cuda.is_available() is False here."
TORCH = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
STRUCTURED = "window 1024", "16 documents", "padding 50 %"
# FlexAttention compiles for every length, some seconds each: it is measured at this one.
FLEX_LENGTH = 32768

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
Step = Callable[[Run], None]


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


def paths(case: str, options: dict[str, Any], n: int, place: Place) -> Iterator[tuple[str, Attention]]:
    """Who can run a case: torch's kernels, headscope's own kernel, what headscope picks, and FlexAttention."""
    if case in ("plain", "causal"):
        for name, kernel in TORCH.items():
            yield f"SDPA {name}", partial(with_kernel, kernel, case == "causal")
    elif case in STRUCTURED and n <= 32768:
        mask = options["mask"].to_dense(n, n, place.device)
        yield "SDPA + dense mask", partial(with_mask, mask)
    yield "headscope", partial(hs.attend, **options)
    yield "headscope triton", partial(hs.attend, backend="triton", **options)
    if case not in ("plain", "causal") and (n == FLEX_LENGTH or place.dry):
        yield "FlexAttention", partial(hs.attend, backend="flex", **options)


def with_kernel(kernel: SDPBackend, causal: bool, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Torch's attention on one of its kernels."""
    with sdpa_kernel(kernel):
        return sdpa(q, k, v, is_causal=causal)


def with_mask(mask: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Torch's attention with the mask as a matrix."""
    return sdpa(q, k, v, attn_mask=mask)


def attention_rows(run: Run, n: int, d: int, only: tuple[str, ...] = ()) -> None:
    """All paths of all cases at one length and head size, forward and backward."""
    place = run.place
    heads, batch = place.size(16, 2), place.size(max(1, 65536 // n), 2)
    for case, options in cases(n, heads, batch).items():
        name = f"{case}, {n} x {d}"
        if only and case not in only:
            continue
        q, k, v = place.inputs(batch, heads, heads, n, n, d, grad=True)
        pairs = hs.plan(q, k, v, **options).flops / (4 * d)
        for path, call in paths(case, options, n, place):
            one = Timed(call, q, k, v, options)
            run.add(name, path, "forward", one.forward, 4 * pairs * d, "TFLOP/s", proof=one.proof)
            if run.rows and run.rows[-1].milliseconds is not None:
                run.add(name, path, "forward + backward", one.both, 14 * pairs * d, "TFLOP/s")
            del one
        place.empty_cache()


class Timed:
    """A path of a case: its values, and its values and gradients."""

    def __init__(self, call: Attention, q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> None:
        self.call, self.inputs, self.options = call, (q, k, v), options

    def forward(self) -> Tensor:
        """The values, for whom nobody asks a gradient."""
        with torch.no_grad():
            return self.call(*self.inputs)

    def both(self) -> object:
        """The values and the gradients of q, k and v."""
        values = self.call(*self.inputs)
        return torch.autograd.grad(values, self.inputs, values.detach())

    def proof(self) -> None:
        """Raise unless the values are those of the formula."""
        q, k, v = (x.detach() for x in self.inputs)
        check(self.forward(), q, k, v, self.options)


def limits(run: Run) -> None:
    """What the machine can do at most: a matrix product, and a copy."""
    n, length = run.place.size(8192, 64), run.place.size(2**30, 2**10)
    a = torch.randn(n, n, device=run.place.device, dtype=run.place.dtype)
    big = torch.empty(length, device=run.place.device, dtype=run.place.dtype)
    run.add("limits", "matrix product", f"{n}³", lambda: a @ a, 2 * n**3, "TFLOP/s")
    run.add("limits", "copy", f"{big.nbytes / 1e9:.1f} GB, read and written", big.clone, 2 * big.nbytes, "TB/s")


def decode_rows(run: Run) -> None:
    """One new query of 32 heads on 8, against 128k keys."""
    keys, d = run.place.size(131072, 61), run.place.size(128, 16)
    for batch in (1, run.place.size(16, 2)):
        q, k, v = run.place.inputs(batch, 32, 8, 1, keys, d)
        moved = float(k.nbytes + v.nbytes)
        mask = hs.padding([keys] * batch)
        calls: dict[str, Callable[..., Tensor]] = {
            "SDPA": partial(sdpa, enable_gqa=True),
            "headscope": hs.attend,
            "headscope triton": partial(hs.attend, backend="triton"),
            "headscope, padded": partial(hs.attend, mask=mask),
        }
        for path, call in calls.items():
            one = Timed(call, q, k, v, {})
            run.add(f"decode, batch {batch}", path, "forward", one.forward, moved, "TB/s", proof=one.proof)


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


def length_rows(run: Run) -> None:
    """Fifty lengths in a row, padded batch, training step: nothing compiles after the first."""
    if not run.wants("50 lengths headscope training step"):
        return
    times = []
    first, step = run.place.size(1000, 17), run.place.size(37, 2)
    heads, d = run.place.size(8, 1), run.place.size(64, 16)
    for n in range(first, first + run.place.size(50, 3) * step, step):
        q, k, v = run.place.inputs(4, heads, heads, n, n, d, grad=True)
        run.place.wait()
        begin = time.monotonic()
        values = hs.attend(q, k, v, mask=hs.padding([n, n // 2, n // 3, n]))
        torch.autograd.grad(values.sum(), (q, k, v))
        run.place.wait()
        times.append(time.monotonic() - begin)
    note = f"first {times[0]:.3f} s, then at most {max(times[1:]) * 1e3:.1f} ms"
    run.note(f"{len(times)} lengths", "headscope", "training step", note)


def record_rows(run: Run) -> None:
    """A forward of a small model, without and within `hs.record`."""
    place = run.place
    m, heads, layers = place.size(1024, 16), place.size(16, 2), place.size(4, 2)
    made = torch.nn.TransformerEncoderLayer(m, heads, 4 * m, batch_first=True)
    model = torch.nn.TransformerEncoder(made, layers, enable_nested_tensor=False).to(place.device, place.dtype).train()
    x = torch.randn(2, place.size(2048, 11), m, device=place.device, dtype=place.dtype)
    for path, within in (("bare", nullcontext), ("recorded", partial(hs.record, model))):

        def forward(within: Callable[[], Any] = within) -> object:
            with torch.no_grad(), within():
                return model(x)

        run.add(f"recording, {layers} layers, 2 x {x.shape[1]}", path, "forward", forward, 0.0, "")


def steps(place: Place) -> list[Step]:
    """Everything that is measured, what matters most first."""
    if place.dry:
        return [limits, partial(attention_rows, n=48, d=16), look_rows, decode_rows, length_rows, record_rows]
    first: list[Step] = [
        limits,
        partial(attention_rows, n=32768, d=128, only=("plain", "causal")),
        partial(attention_rows, n=32768, d=128, only=STRUCTURED),
        look_rows,
        decode_rows,
        length_rows,
        record_rows,
        partial(attention_rows, n=32768, d=128, only=("softcap", "ALiBi")),
        partial(attention_rows, n=32768, d=64),
    ]
    return first + [partial(attention_rows, n=n, d=d) for n in (8192, 2048, 131072) for d in (128, 64)]


def name_of(step: Step) -> str:
    """The name of a step."""
    return str(getattr(step, "func", step).__name__)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=7, help="when to stop beginning new rows")
    parser.add_argument("--only", default="", help="run the rows whose name contains this")
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu-cuda.json", help="where the JSON goes")
    parser.add_argument("--dry", action="store_true", help="run every step on the CPU, tiny, in Triton's interpreter")
    asked = parser.parse_args(arguments)
    if not asked.dry and not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    if asked.dry and os.environ.get("TRITON_INTERPRET") != "1":
        # Triton decides at its import whether it interprets, and that is behind us.
        command = [sys.executable, __file__, *(sys.argv[1:] if arguments is None else arguments)]
        return subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, check=False).returncode
    place = DRY if asked.dry else Place()
    run = Run(time.monotonic() + 60 * asked.minutes, asked.only, place)
    print("| case | path | direction | median | rate | note |\n|---|---|---|---:|---:|---|")
    for step in steps(place):
        try:
            step(run)
        except Exception as error:  # noqa: BLE001
            run.note(name_of(step), "", "", reason(error))
        place.empty_cache()
        if not asked.dry:
            asked.output.parent.mkdir(parents=True, exist_ok=True)
            content = {"machine": machine("cuda"), "rows": [asdict(row) for row in run.rows]}
            asked.output.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
