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
from torch.nn.attention import SDPBackend
from torch.nn.functional import scaled_dot_product_attention as sdpa

import gpu_varlen
import headscope as hs
from gpu_looks import look_rows
from gpu_rows import DRY, Place, Run, check, reason, with_kernel
from headscope.attention.masks.mask import Combined
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


def paths(case: str, options: dict[str, Any], n: int, batch: int, place: Place) -> Iterator[tuple[str, Attention]]:
    """Who can run a case: torch's kernels, headscope's own kernel, what headscope picks, and FlexAttention."""
    if case in ("plain", "causal"):
        for name, kernel in TORCH.items():
            yield f"SDPA {name}", partial(with_kernel, kernel, case == "causal")
    elif case in STRUCTURED and n <= 32768:
        mask = options["mask"].to_dense(n, n, place.device)
        yield "SDPA + dense mask", partial(with_mask, mask)
    if case == "16 documents":
        yield (
            "varlen_attn",
            partial(gpu_varlen.attend, gpu_varlen.of_documents(lengths_of(options, place), batch), True),
        )
    elif case == "padding 50 %":
        padded = gpu_varlen.of_padding(lengths_of(options, place), n)
        yield "varlen_attn", partial(gpu_varlen.attend, padded, False)
    yield "headscope", partial(hs.attend, **options)
    yield "headscope triton", partial(hs.attend, backend="triton", **options)
    if case not in ("plain", "causal") and (n == FLEX_LENGTH or place.dry):
        yield "FlexAttention", partial(hs.attend, backend="flex", **options)


def lengths_of(options: dict[str, Any], place: Place) -> Tensor:
    """The lengths of a case of documents or padding."""
    mask: Any = options["mask"]
    # Causal documents, or padding alone.
    part: Any = mask.b if isinstance(mask, Combined) else mask
    lengths: Tensor = part.keys
    return lengths.to(place.device)


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
        for path, call in paths(case, options, n, batch, place):
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
