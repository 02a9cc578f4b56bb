"""Compile every Triton kernel for a GPU that is not there, and read what the assembler says of it.

`python -m tests.attention.ahead_of_time` prints the table of docs/gpu.md.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from headscope.attention.device import described
from headscope.attention.paths.triton.sizes import KERNELS, padded, size_of

TYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
LOOKS = {"RECEIVED": True, "MAPS": True, "TOP": True, "LEFT_OUT": True}
NO_OPTIONS = {"BIAS": 0, "SOFTCAP": False, "SINKS": False, "DROPOUT": False, **LOOKS}
ALL_OPTIONS = {"BIAS": 1, "SOFTCAP": True, "SINKS": True, "DROPOUT": True, **LOOKS}

FLOATS = {
    "lse_ptr", "drawn_ptr", "slant_ptr", "bias_ptr", "sinks_ptr", "dline_ptr", "entropy_ptr", "square_ptr", "peak_ptr",
    "listed_ptr", "grad_lse_ptr", "part_ptr", "part_lse_ptr",
}  # fmt: skip


class Report(NamedTuple):
    """What the assembler says of one kernel."""

    kernel: str
    capability: tuple[int, int]
    d: int
    dtype: str
    options: str
    blocks: str
    registers: int
    spills: int
    shared: int


def kernels():
    """Every kernel, by the name of its row in the table of sizes."""
    from headscope.attention.paths.triton import (
        forward_kernel,
        keys_kernel,
        line_kernel,
        queries_kernel,
        score_gradient,
        split_kernel,
    )
    from headscope.look.kernels import pass_kernel

    return {
        "forward": forward_kernel.forward,
        "queries": queries_kernel.queries_gradient,
        "keys": keys_kernel.keys_gradient,
        "look": pass_kernel.look,
        "split": split_kernel.split,
        "merge": split_kernel.merge,
        "line": line_kernel.line_gradient,
        "rows": score_gradient.rows_product,
    }


def compiled(name, capability, d, dtype=torch.bfloat16, options=NO_OPTIONS, size=None) -> Report:
    """Compile a kernel for head size d."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = kernels()[name]
    size = size or size_of(
        name if name in KERNELS else "queries", d, d, dtype, described(capability), options is ALL_OPTIONS
    )
    constants = {
        "D": d, "E": d, "WIDTH_D": padded(d), "WIDTH_E": padded(d), "BLOCK_M": size.queries, "BLOCK_N": size.keys,
        "ALIGN": 16 // dtype.itemsize, "PRECISION": "tf32x3" if dtype == torch.float32 else "tf32", "SEARCH": 256,
        "BLOCK": 32, "LSE": True,
        **options,
    }  # fmt: skip
    constants = {k: v for k, v in constants.items() if k in kernel.arg_names}
    signature = {arg: kind(arg, TYPES[dtype]) for arg in kernel.arg_names if arg not in constants}
    attrs = {(n,): [["tt.divisibility", 16]] for n, arg in enumerate(kernel.arg_names) if arg.endswith("_ptr")}
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, {a: signature[a] for a in kernel.arg_names}, constants, attrs)
    target = GPUTarget("cuda", capability[0] * 10 + capability[1], 32)
    made = triton.compile(source, target=target, options={"num_warps": size.warps, "num_stages": size.stages})
    registers, spills = assembled(made.asm["ptx"])
    blocks = f"{size.queries} x {size.keys}, {size.warps} warps, {size.stages} stages"
    return Report(
        name,
        capability,
        d,
        TYPES[dtype],
        "all" if options is ALL_OPTIONS else "none",
        blocks,
        registers,
        spills,
        made.metadata.shared,
    )


def kind(arg, dtype):
    """The type of an argument."""
    if arg in ("start_ptr", "stop_ptr", "hull_ptr", "most_ptr", "names_ptr"):
        return "*i32"
    if arg in FLOATS:
        return "*fp32"
    if arg in ("seed_ptr", "received_ptr", "mean_ptr"):
        return "*i64"
    if arg == "left_out_ptr":
        return "*u8"
    if arg.endswith("_ptr"):
        return "*" + dtype
    return "fp32" if arg in ("scale", "softcap", "dropout") else "i32"


def assembled(ptx: str) -> tuple[int, int]:
    """Registers of a thread and bytes spilled, from the assembler that Triton brings."""
    import triton.backends.nvidia

    folder = Path(triton.backends.nvidia.__file__).parent / "bin"
    architecture = re.search(r"\.target (sm_\w+)", ptx).group(1)
    names = ["ptxas-blackwell", "ptxas"] if architecture >= "sm_100" else ["ptxas"]
    ptxas = next(folder / name for name in names if (folder / name).exists())
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "kernel.ptx").write_text(ptx)
        command = [ptxas, "-v", f"--gpu-name={architecture}", "kernel.ptx", "-o", "kernel.cubin"]
        said = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True).stderr
    registers = max(int(n) for n in re.findall(r"Used (\d+) registers", said))
    spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", said))
    return registers, spills


HEADER = (
    "| kernel | d | dtype | options | capability | blocks | registers | spilled | shared memory |\n" + "|---" * 9 + "|"
)


def row(report: Report) -> str:
    """A report as a row of the table."""
    cells = (
        report.kernel, report.d, report.dtype, report.options, ".".join(map(str, report.capability)), report.blocks,
        report.registers, report.spills, f"{report.shared / 1024:.0f} KB",
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    names = sys.argv[1].split(",") if len(sys.argv) > 1 else ["forward", "queries", "keys", "look"]
    sizes = [int(n) for n in sys.argv[2].split(",")] if len(sys.argv) > 2 else [64, 128, 256]
    dtype = getattr(torch, sys.argv[3]) if len(sys.argv) > 3 else torch.bfloat16
    print(HEADER)
    for name in names:
        for d in sizes:
            for options in (NO_OPTIONS, ALL_OPTIONS):
                for capability in ((8, 0), (9, 0), (10, 0)):
                    print(row(compiled(name, capability, d, dtype, options)), flush=True)
