"""The kernels compile for GPUs that are not here, keep their numbers in registers, and are the ones of docs/gpu.md."""

from pathlib import Path

import pytest
import torch

from headscope.attention.device import described
from tests.attention import ahead_of_time

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"
CAPABILITIES = (8, 0), (9, 0), (10, 0)
OPTIONS = {"none": ahead_of_time.NO_OPTIONS, "all": ahead_of_time.ALL_OPTIONS}


def holds(name, capability, d, dtype=torch.bfloat16, options="none"):
    report = ahead_of_time.compiled(name, capability, d, dtype, OPTIONS[options])
    assert report.spills == 0
    assert report.registers <= 255
    assert report.shared <= described(capability).shared_memory
    return report


def test_one_kernel_compiles_without_a_gpu():
    report = holds("forward", (9, 0), 64)
    assert report.blocks in PAGE.read_text()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("options", list(OPTIONS))
@pytest.mark.parametrize("d", [64, 128, 256])
@pytest.mark.parametrize("name", ["forward", "queries", "keys", "look"])
def test_every_kernel_keeps_its_numbers_in_registers(name, d, options):
    page = PAGE.read_text()
    for capability in CAPABILITIES:
        report = holds(name, capability, d, options=options)
        # Registers may change with the version of the assembler; the blocks are ours.
        found = f"| {name} | {d} | bf16 | {options} | {'.'.join(map(str, capability))} | {report.blocks} |"
        assert found in page


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("options", list(OPTIONS))
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_largest_kernel_of_float32_keeps_its_numbers_in_registers(capability, options):
    holds("forward", capability, 128, torch.float32, options)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["split", "merge", "line", "rows"])
def test_the_smaller_kernels_compile(name):
    for capability in CAPABILITIES:
        ahead_of_time.compiled(name, capability, 128, options=ahead_of_time.ALL_OPTIONS)
