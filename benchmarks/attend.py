"""Is `hs.attend` as fast as the fastest peer on every mask and bias, and how much memory does it take?

    python benchmarks/attend.py [--device cuda] [--only window] [--dtype float32] [--rounds 15]

Every case times headscope beside each peer that can do it: torch's SDPA, SDPA with the mask written out, compiled
FlexAttention, x-transformers' attend and the eager formula. The limits of the machine stand beside them: the rate of a
plain matrix product and of a plain read.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

import headscope as hs
from memory import peak
from timing import Report, arguments, compare

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass
class Case:
    """One thing to time: sizes, what headscope is asked for, and the peers that can do the same."""

    name: str
    sizes: tuple[int, int, int, int, int, int]  # b, h, g, q, k, d
    options: dict[str, Any] = field(default_factory=dict)
    causal: bool = False
    written_out: bool = False
    flex: bool = False
    eager: bool = False
    trains: bool = True
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    plain: bool = False  # time SDPA without the mask or bias, as the scale of what a bias costs

    def inputs(self, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
        """Random q, k and v."""
        b, h, g, q, k, d = self.sizes
        torch.manual_seed(0)
        return (
            torch.randn(b, h, q, d, dtype=dtype, device=device),
            torch.randn(b, g, k, d, dtype=dtype, device=device),
            torch.randn(b, g, k, d, dtype=dtype, device=device),
        )

    def peers(self, dtype: torch.dtype, device: str) -> dict[str, Attention]:
        """headscope first, then whoever else can do this case."""
        _, h, g, q, k, _ = self.sizes
        mask: Any = self.options.get("mask")
        rows: dict[str, Attention] = {"headscope": partial(hs.attend, **self.options)}
        if (mask is None and not self.options) or self.causal or self.plain:
            rows["SDPA"] = partial(sdpa, is_causal=self.causal and q == k, enable_gqa=h != g)
        if self.written_out:
            rows["SDPA + mask"] = partial(sdpa, attn_mask=mask.to_dense(q, k, device), enable_gqa=h != g)
        if self.flex:
            rows["FlexAttention"] = flex(mask, q, k, device)
        if self.eager:
            rows["formula"] = partial(hs.attend, backend="formula", **self.options)
        if mask is None and not self.options and h == g:
            with suppress(ImportError):
                from x_transformers.attend import Attend

                attend = Attend(flash=True, causal=False)
                rows["x-transformers"] = lambda q, k, v: attend(q, k, v)[0]
        return rows


def flex(mask: hs.Mask, q: int, k: int, device: str) -> Attention:
    """Compiled FlexAttention with the same mask."""
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention)
    return partial(compiled, block_mask=mask.to_block_mask(q, k, device))


def cases() -> Iterator[Case]:
    """Every case, from the plainest to the longest."""
    for n in (16, 512, 2048, 8192, 16384):
        yield Case(f"no mask, N = {n}", (1, 8, 8, n, n, 64), eager=n <= 2048, trains=n <= 2048)
        yield Case(f"causal, N = {n}", (1, 8, 8, n, n, 64), {"mask": hs.causal()}, causal=True, trains=n <= 2048)
    long = (1, 12, 12, 8192, 8192, 64)
    yield Case("window of 256, N = 8192", long, {"mask": hs.window(255)}, written_out=True, flex=True)
    documents = hs.causal() & hs.documents([512] * 16)
    yield Case("16 packed documents, causal, N = 8192", long, {"mask": documents}, written_out=True, flex=True)
    lengths = torch.linspace(32, 512, 16).int()
    padded = hs.padding(lengths, lengths)
    yield Case(
        "padded batch, 16 x 512, lengths 32 to 512", (16, 12, 12, 512, 512, 64), {"mask": padded}, written_out=True
    )
    ragged = torch.tensor([37, 61, 89, 127, 151, 193, 223, 257, 281, 317, 349, 383, 419, 449, 487, 509])
    uneven = hs.padding(ragged, ragged)
    yield Case("padded batch, 16 x 512, prime lengths", (16, 12, 12, 512, 512, 64), {"mask": uneven}, written_out=True)
    yield Case(
        "decode, 32 heads on 8, 32768 keys", (1, 32, 8, 1, 32768, 128), {"mask": hs.causal()}, causal=True, trains=False
    )
    yield Case("chunk of 512 onto 8192 keys, causal", (1, 8, 8, 512, 8192, 64), {"mask": hs.causal()}, written_out=True)
    biased = (1, 8, 8, 8192, 8192, 64)
    table = torch.randn(32, 8)
    extras: dict[str, dict[str, Any]] = {
        "softcap": {"softcap": 50.0},
        "ALiBi": {"bias": hs.alibi(8)},
        "T5 bias": {"bias": hs.relative(table)},
        "sinks": {"sinks": torch.randn(8)},
    }
    for name, options in extras.items():
        yield Case(f"{name}, N = 8192", biased, options, plain=True)


def run(case: Case, report: Report, device: str, rounds: int, only: str = "") -> None:
    """Time one case in every dtype, or in one of them, forward and forward + backward."""
    for dtype in case.dtypes:
        if not str(dtype).endswith(only):
            continue
        inputs = case.inputs(dtype, device)
        name = str(dtype).removeprefix("torch.")
        rows = case.peers(dtype, device)
        with torch.no_grad():
            timings = compare({who: partial(f, *inputs) for who, f in rows.items()}, rounds=rounds, device=device)
        report.add(case.name, timings, dtype=name, direction="forward", plan=hs.plan(*inputs, **case.options).backend)
        if not case.trains:
            continue
        for x in inputs:
            x.requires_grad_()
        grad = torch.randn_like(inputs[0])
        trains = {who: f for who, f in rows.items() if who != "FlexAttention" or device != "cpu"}
        trained = {who: partial(gradients, f, inputs, grad) for who, f in trains.items()}
        report.add(
            case.name,
            compare(trained, rounds=max(3, rounds // 3), device=device),
            dtype=name,
            direction="forward + backward",
        )


def gradients(attention: Attention, inputs: tuple[Tensor, Tensor, Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    """Forward and backward; the output lives as long as the gradients, as in a layer."""
    values = attention(*inputs)
    return values, *torch.autograd.grad(values, inputs, grad)


def memories() -> Iterator[tuple[str, int, dict[str, Any], bool]]:
    """What is asked how much memory it takes: its name, N, the options, and whether it trains."""
    kept = (hs.first(4) | hs.window(1024)) & hs.causal()
    for n in (32768, 131072):
        yield f"(first(4) | window(1024)) & causal, N = {n}", n, {"mask": kept}, False
    extras: dict[str, dict[str, Any]] = {
        "softcap": {"softcap": 50.0},
        "ALiBi": {"bias": hs.alibi(8)},
        "T5 bias": {"bias": hs.relative(torch.randn(32, 8, requires_grad=True))},
        "sinks": {"sinks": torch.randn(8, requires_grad=True)},
    }
    for name, options in extras.items():
        yield f"{name}, N = 8192, forward + backward", 8192, options, True


def beyond(number: int, dtype: torch.dtype, device: str) -> float:
    """MB that one of `memories()` takes beyond its inputs, outputs and gradients; meant for a process of its own."""
    _, n, options, trains = list(memories())[number]

    def work(length: int) -> tuple[Callable[[], object], int]:
        q, k, v = (torch.randn(1, 8, length, 64, dtype=dtype, device=device, requires_grad=trains) for _ in range(3))
        results = q.numel() * q.element_size() * (4 if trains else 1)
        if not trains:
            return partial(hs.attend, q, k, v, **options), results
        return partial(gradients, partial(hs.attend, **options), (q, k, v), torch.randn_like(q)), results

    # A short call first: what torch and the libraries under it load at their first use is not this call's memory.
    work(512)[0]()
    call, results = work(n)
    return (peak(call, device) - results) / 1e6


def memory(report: Report, device: str) -> None:
    """Memory beyond inputs, outputs and gradients, in MB, each in a fresh process."""
    for dtype in ("float32", "bfloat16"):
        for number, (name, *_) in enumerate(memories()):
            command = [sys.executable, __file__, "--device", device, "--beyond", str(number), dtype]
            found = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            report.cases.append({"case": name, "dtype": dtype, "MB beyond": found, "rows": {}})
            print(f"{name}, {dtype}: {found:.1f} MB beyond inputs, outputs and gradients", flush=True)


def limits(report: Report, device: str, rounds: int) -> None:
    """This machine's plain matrix product and plain read."""
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(2, 2048, 2048, dtype=dtype, device=device)
        big = torch.randn(2**26, dtype=dtype, device=device)
        product = compare(
            {"product": partial(torch.matmul, a, b), "read": partial(torch.sum, big)}, rounds=rounds, device=device
        )
        rate = 2 * 2048**3 / product["product"].seconds / 1e9
        read = big.numel() * big.element_size() / product["read"].seconds / 1e9
        report.add("limits", product, dtype=str(dtype).removeprefix("torch."), GFLOPs=round(rate), GBs=round(read, 1))


def main() -> None:
    """Run every case and write the report."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--dtype", default="", help="measure only this one; few processors compute in bfloat16")
    parser.add_argument("--beyond", nargs=2, metavar=("NUMBER", "DTYPE"), help="measure only the memory of one case")
    given = parser.parse_args()
    if given.beyond:
        print(round(beyond(int(given.beyond[0]), getattr(torch, given.beyond[1]), given.device), 1))
        return
    report = Report("attend", "hs.attend beside its peers", given.device)
    limits(report, given.device, given.rounds)
    for case in cases():
        if given.only in case.name:
            run(case, report, given.device, given.rounds, given.dtype)
        if not (given.only or given.dtype):
            # A whole run takes a quarter of an hour: what was measured stays, if it is stopped.
            report.write(keep=given.keep)
    if given.only in "memory":
        memory(report, given.device)
    if given.keep or not (given.only or given.dtype):
        print(report.write(keep=given.keep))


if __name__ == "__main__":
    main()
