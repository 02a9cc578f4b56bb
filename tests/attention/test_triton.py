"""The Triton path: kernels in the interpreter against float64, its refusals, and the plan of devices elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import headscope as hs
from headscope.attention import gpu_order, plan, torch_kernel
from headscope.attention.device import Device, described, device_of
from headscope.attention.masks.runs import Runs
from headscope.attention.paths import flex, formula, fused, tiled, triton
from headscope.attention.paths.triton.hulls import hulls
from headscope.attention.paths.triton.sizes import KERNELS, padded, shared_memory, size_of
from headscope.attention.request import Request
from headscope.errors import BackendRefused
from tests.attention.cases import masks

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")

H100 = described((9, 0))


def in_interpreter(what: str, module: str = "triton_cases") -> None:
    """Run cases in a process of their own: Triton decides at its import whether it interprets."""
    command = [sys.executable, "-W", "ignore", "-m", f"tests.attention.{module}", what]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.stdout.endswith("all equal\n"), done.stderr[-4000:]


def test_a_sample_of_masks_and_options_is_the_formula_compiled_too():
    in_interpreter("sample", "triton_operator_cases")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_operator_serves_every_length_in_one_graph():
    in_interpreter("all", "triton_operator_cases")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", ["dropout", "all"])
def test_every_mask_and_option_is_the_formula(what):
    in_interpreter(what)


@pytest.mark.parametrize("mask", [name for name in masks(19, 23, 2, 4) if name != "none"])
@pytest.mark.parametrize("block", [4, 7, 32])
def test_hulls_hold_every_run_and_nothing_hidden_is_in_the_inner_part(mask, block):
    q, k = 19, 23
    runs: Runs = masks(q, k, 2, 4)[mask].runs(q, k)
    found = hulls(runs, q, k, block)
    if runs.start.shape[2] == 1:
        assert found.shape[2] == 1
        return
    for first in range(0, q, block):
        start, stop = (side[:, :, first : first + block] for side in runs)
        low, high, full_low, full_high = found[:, :, first // block].unbind(-1)
        seen = stop > start
        assert ((low[:, :, None] <= start) & (high[:, :, None] >= stop) | ~seen).all()
        inner = (full_low < full_high)[:, :, None]
        assert ((start <= full_low[:, :, None]) & (stop >= full_high[:, :, None]) | ~inner).all()
        assert (seen | ~inner).all()


def request(device=H100, dtype=torch.bfloat16, d=64, queries=2048, keys=None, e=None, h=8, g=2, **options):
    q, k = torch.empty(1, h, queries, d, dtype=dtype), torch.empty(1, g, keys or queries, d, dtype=dtype)
    asked = Request(q, k, torch.empty(1, g, keys or queries, e or d, dtype=dtype), **options)
    asked.device = device
    return asked


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda: request(Device("cpu", triton="3.9.0")), "Triton compiles for NVIDIA GPUs, and q is on 'cpu'"),
        (lambda: request(Device("cpu", triton=None)), "Triton compiles for NVIDIA GPUs, and q is on 'cpu'"),
        (lambda: request(Device("cuda", triton="3.9.0")), "and q is on 'cuda'"),
        (lambda: request(described((9, 0), triton=None)), "Triton is not installed: pip install triton"),
        (lambda: request(described((9, 0), triton="3.1.0")), "Triton 3.1.0 is installed and the kernels need 3.5"),
        (lambda: request(described((7, 5))), "need compute capability 8.0 .* this GPU has 7.5"),
        (lambda: request(H100._replace(interpreted=True)), "interpreter multiplies bfloat16 as integers"),
        (lambda: request(dtype=torch.float64), "compute in float32 and have no float64"),
        (lambda: request(d=257), "head sizes up to 256, not 257"),
        (lambda: request(d=64, e=300), "head sizes up to 256, not 300"),
        (lambda: request(queries=0, keys=3), "at least one query, one key and one feature"),
        (lambda: request(bias=hs.dense_bias(torch.zeros(2048, 2048))), "not one that is written out"),
        (lambda: request(H100._replace(shared_memory=16384), d=256), "KB of shared memory and this GPU has 16 KB"),
    ],
)
def test_every_refusal_has_its_reason(asked, message):
    reasons = triton.refusals(asked())
    assert len(reasons) == 1
    assert re.search(message, reasons[0])


def test_transforms_and_the_unfused_kernel_alone_are_refused():
    x = torch.zeros(1, 1, 2, 16)
    seen = []

    def inside(q):
        seen.extend(triton.refusals(Request(q, x, x)))
        return q.sum()

    torch.func.grad(inside)(x)
    assert any("no derivatives under torch.func's transforms" in reason for reason in seen)
    seen.clear()
    torch.jit.trace(inside, x)
    assert any("cannot hold the operator of the Triton kernels" in reason for reason in seen)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert any("allows no kernel but the unfused one" in reason for reason in triton.refusals(request()))


def test_a_choice_by_name_raises_with_every_reason():
    x = torch.zeros(1, 1, 2, 300, dtype=torch.float64)
    with pytest.raises(BackendRefused, match=r"q is on 'cpu'; .*no float64; .*up to 256, not 300"):
        hs.attend(x, x, x, backend="triton")


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, fused),
        ({"mask": hs.causal()}, fused),
        ({"dropout": 0.1}, fused),
        ({"mask": hs.causal(), "queries": 512, "keys": 2048}, triton),
        ({"mask": hs.window(100)}, triton),
        ({"mask": hs.padding([1024])}, triton),
        ({"mask": hs.causal() & hs.documents([1024] * 2)}, triton),
        ({"bias": hs.alibi(8), "mask": hs.causal()}, triton),
        ({"softcap": 30.0}, triton),
        ({"sinks": torch.zeros(8)}, triton),
        ({"needs_lse": True}, triton),
        ({"mask": hs.dense(torch.ones(2048, 2048, dtype=torch.bool))}, fused),
        ({"mask": hs.dense(torch.ones(2048, 2048, dtype=torch.bool)) & hs.causal()}, triton),
        ({"bias": hs.dense_bias(torch.zeros(2048, 2048))}, fused),
        ({"bias": hs.dense_bias(torch.zeros(2048, 2048)), "softcap": 2.0}, tiled),
        ({"d": 257, "mask": hs.window(100)}, tiled),
        ({"dtype": torch.float64, "mask": hs.window(100)}, tiled),
        ({"d": 257, "queries": 512, "mask": hs.window(100)}, fused),
    ],
    ids=str,
)
@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (10, 0), (12, 0)])
def test_the_plan_of_a_gpu(options, path, capability):
    chosen, why = gpu_order.choose(request(described(capability), **options), described(capability))
    assert chosen is path
    assert why


def test_without_triton_or_on_an_old_gpu_a_mask_is_not_written_out():
    for device in (described((9, 0), triton=None), described((7, 0))):
        chosen, why = gpu_order.choose(request(device, mask=hs.window(100)), device)
        assert chosen is tiled
        assert "would need the mask written out" in why
    assert flex not in {path for order in gpu_order.ORDERS.values() for path in (*order.plain, *order.structured)}
    assert all(order.structured[-1] is formula for order in gpu_order.ORDERS.values())


@pytest.mark.parametrize(
    ("number", "active", "name"),
    [
        (0, None, "the unfused formula"),
        (1, None, "FlashAttention 2"),
        (1, "FA3", "FlashAttention 3"),
        (1, "FA4", "FlashAttention 4"),
        (1, "FA5", "FA5"),
        (2, "FA3", "the memory-efficient kernel"),
        (3, None, "cuDNN's kernel"),
        (4, None, None),
    ],
)
def test_the_plan_names_the_kernel_that_torch_takes(number, active, name, monkeypatch):
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *args, **options: number)
    monkeypatch.setattr(torch.nn.attention, "current_flash_attention_impl", lambda: active, raising=False)
    asked = request(mask=hs.causal())
    assert torch_kernel.torch_kernel(asked) == name
    why = plan.describe(asked, None).why
    assert why == "torch's fused kernel runs it as it is" + (f" ({name})" if name else "")


def test_torch_is_asked_about_the_call_as_it_will_be_made(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *args, **options: seen.append((*args[3:], options)) or 1)
    for options in ({}, {"mask": hs.causal()}, {"mask": hs.dense(torch.ones(64, 64, dtype=torch.bool)), "queries": 64}):
        torch_kernel.torch_kernel(request(**options))
    (plain, _, alone, how), (no_mask, _, causal, _), (added, _, masked, _) = seen
    assert (plain, alone, no_mask, causal, masked) == (None, False, None, True, False)
    assert added.shape == (1, 8, 64, 64)
    assert how == {"scale": 0.125, "enable_gqa": True}


def test_a_kernel_that_torch_does_not_name_is_not_named(monkeypatch):
    def nothing(*args, **options):
        raise RuntimeError("No viable backend for scaled_dot_product_attention was found.")

    monkeypatch.setattr(torch, "_fused_sdp_choice", nothing)
    assert torch_kernel.torch_kernel(request()) is None
    monkeypatch.delattr(torch, "_fused_sdp_choice")
    assert torch_kernel.torch_kernel(request()) is None


def test_blocks_fit_into_the_shared_memory_of_every_class_of_device():
    for capability in ((8, 0), (9, 0), (10, 0)):
        device = described(capability)
        for kernel in KERNELS:
            for d in (16, 33, 64, 128, 256):
                for dtype in (torch.bfloat16, torch.float32):
                    size = size_of(kernel, d, d, dtype, device)
                    assert shared_memory(size, d, d, dtype) <= device.shared_memory
    assert [padded(d) for d in (1, 16, 17, 128, 129, 256)] == [16, 16, 32, 128, 256, 256]


def test_a_device_without_a_gpu_is_what_it_is():
    found = device_of(torch.device("cpu"))
    assert found.kind == "cpu"
    assert found.capability is None
