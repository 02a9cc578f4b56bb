"""What do the statistics of a head cost, beside the attention itself, and how much memory do they take?

    python benchmarks/look.py [--device cuda] [--rounds 15] [--only together]

Every row is timed in turns with torch's SDPA forward over the same heads. "Together" is one call that yields received,
entropy, the top 8 keys of every query, the offsets up to 16, and the mean and max map.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from functools import partial

import torch
from torch.nn.functional import scaled_dot_product_attention

import headscope as hs
from headscope.attention.request import Request
from headscope.look.kernels.ask import Ask, Seen
from headscope.look.kernels.diagonals import band_sums
from headscope.look.kernels.stream import stream
from headscope.look.sequences import aligned
from headscope.look.statistics import cells_for
from memory import peak
from timing import Report, Work, arguments, compare

QUESTION = "What do the statistics of a head cost beside the attention itself?"


def together(request: Request, size: int) -> Seen:
    """Everything at once, as a table of heads or a map asks for it."""
    cells = cells_for(request.q.shape[2], request.k.shape[2], size)
    ask = Ask(entropy=True, received=True, top=8, mean_map=True, max_map=True, cells=cells)
    seen = stream(request, ask)
    band_sums(request, 16, seen.lse, aligned(request.runs(), request.q.shape[2], request.k.shape[2]))
    return seen


def times(options: argparse.Namespace) -> None:
    """Ratios to the SDPA forward."""
    report = Report("look", QUESTION, options.device)
    for name, sizes, mask in (
        ("2 heads x 8192", (1, 2, 8192, 64), None),
        ("2 heads x 8192, causal", (1, 2, 8192, 64), hs.causal()),
        ("12 heads x 512", (1, 12, 512, 64), None),
    ):
        if options.only not in name:
            continue
        q, k, v = torch.randn(3, *sizes, device=options.device)
        request = Request(q, k, v, mask)
        rows: dict[str, Work] = {
            "SDPA forward": partial(scaled_dot_product_attention, q, k, v, is_causal=mask is not None),
            "everything, 256 x 256 maps": partial(together, request, 256),
            "everything, 128 x 128 maps": partial(together, request, 128),
            "entropy": partial(hs.look.entropy, q, k, mask=mask),
            "received": partial(hs.look.received, q, k, mask=mask),
            "top 8": partial(hs.look.top, q, k, 8, mask=mask),
            "offsets 16": partial(hs.look.offsets, q, k, 16, mask=mask),
        }
        with torch.no_grad():
            found = compare(rows, rounds=options.rounds, device=options.device)
        report.add(name, found, dtype="float32", d=64)
    if options.keep or not options.only:
        report.write(keep=options.keep)


def memory(sizes: tuple[int, int]) -> None:
    """The rise of the process's memory above its inputs, in a process of its own."""
    heads, length = sizes
    warm = torch.randn(1, 1, 64, 64)
    together(Request(warm, warm, warm), 16)
    q, k = torch.randn(2, 1, heads, length, 64)
    start = time.perf_counter()
    rise = peak(partial(together, Request(q, k, k), 256))
    inputs = 2 * q.numel() * 4
    print(
        f"{heads} x {length}: {rise / 2**20:.0f} MiB above inputs of {inputs / 2**20:.0f} MiB, "
        f"{time.perf_counter() - start:.1f} s",
        flush=True,
    )


def main() -> None:
    """Times, then memory."""
    parser = arguments(QUESTION)
    parser.add_argument("--memory", type=int, nargs=2, metavar=("HEADS", "LENGTH"), help="measure only this")
    options = parser.parse_args()
    if options.memory:
        memory(tuple(options.memory))
        return
    times(options)
    if options.only:
        return
    for sizes in (("2", "8192"), ("1", "32768"), ("1", "131072")):
        subprocess.run([sys.executable, __file__, "--memory", *sizes], check=True)


if __name__ == "__main__":
    main()
