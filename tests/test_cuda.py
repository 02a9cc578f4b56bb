"""Everything that runs on an NVIDIA GPU, on one: every path, training, autocast, graphs, looks, recording, models.

Elsewhere these are skipped; the kernels themselves run in Triton's interpreter in tests/attention/test_triton.py.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import headscope as hs
from headscope.attention import plan
from headscope.attention.paths import formula
from headscope.attention.request import Request
from headscope.look.kernels import gpu_pass
from headscope.look.kernels.ask import Ask
from tests.attention.cases import everything, extras, learned, masks
from tests.look.oracle import full

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU: torch.cuda.is_available() is False"),
]

B, H, G, Q, K, D = 2, 6, 3, 131, 197, 64
# One rounding of inputs and outputs, on numbers of about 1.
LIMITS = {torch.float32: 2e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}


def made(dtype=torch.float32, d=D, grad=True):
    torch.manual_seed(0)
    sizes = (B, H, Q, d), (B, G, K, d), (B, G, K, d)
    return [torch.randn(s, device="cuda").to(dtype).requires_grad_(grad) for s in sizes]


def on_gpu(options):
    """The same options with their tensors on the GPU."""
    found = dict(options)
    if found.get("sinks") is not None:
        found["sinks"] = found["sinks"].detach().cuda().requires_grad_()
    return found


def compare(name, mask, extra, dtype, d=D):
    q, k, v = made(dtype, d)
    options = on_gpu(extras(H, Q, K, torch.float32)[extra]) | {"mask": masks(Q, K, B, H)[mask]}
    path = plan.PATHS[name]
    request = Request(q, k, v, **options, needs_lse=True)
    if reasons := path.refusals(request):
        pytest.skip(f"{name}: {'; '.join(reasons)}")
    wanted = [q, k, v, *learned(options)]
    mine = everything(lambda: path.run(request), wanted)
    # The float64 formula on the CPU, with the same numbers.
    wide = [x.detach().double().cpu().requires_grad_() for x in (q, k, v)]
    theirs = extras(H, Q, K, torch.float64)[extra] | {"mask": masks(Q, K, B, H)[mask]}
    for own, other in zip(learned(theirs), learned(options), strict=True):
        own.data.copy_(other.data)
    expected = everything(lambda: formula.run(Request(*wide, **theirs)), [*wide, *learned(theirs)])
    for one, other in zip(mine, expected, strict=True):
        one, other = (x.detach().double().cpu().masked_fill(x.cpu().isneginf(), 0.0) for x in (one, other))
        assert float((one - other).abs().max()) <= LIMITS[dtype] * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("extra", list(extras(6, 11, 17)))
@pytest.mark.parametrize("mask", list(masks(11, 17, 2, 6)))
@pytest.mark.parametrize("name", ["triton", "tiled"])
def test_paths_are_the_formula(name, mask, extra):
    compare(name, mask, extra, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("d", [16, 80, 128, 256])
@pytest.mark.parametrize("extra", ["plain", "softcap", "alibi", "relative", "sinks"])
def test_head_sizes_and_dtypes_of_the_kernel(extra, d, dtype):
    compare("triton", "packed causal", extra, dtype, d)


@pytest.mark.parametrize("mask", [None, hs.causal(), hs.window(50), hs.padding([150, 7])], ids=repr)
def test_whatever_is_picked_is_the_formula(mask):
    q, k, v = made(torch.bfloat16, grad=False)
    found = hs.attend(q, k, v, mask=mask)
    expected = formula.run(Request(q.double(), k.double(), v.double(), mask))[0]
    torch.testing.assert_close(found.double(), expected, rtol=3e-2, atol=3e-2)


def test_a_second_length_batch_or_mask_compiles_nothing():
    from headscope.attention.paths.triton import forward_kernel, keys_kernel, queries_kernel

    kernels = forward_kernel.forward, queries_kernel.queries_gradient, keys_kernel.keys_gradient

    def count():
        return sum(len(cache[0]) for kernel in kernels for cache in kernel.device_caches.values())

    def step(b, n, mask):
        q, k, v = (torch.randn(b, 4, n, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        hs.attend(q, k, v, mask=mask, backend="triton").sum().backward()

    step(2, 1024, hs.window(100))
    before = count()
    for n in range(301, 1301, 97):
        step(3, n, hs.padding([n, 1, n // 2]))
        step(1, n, hs.causal() & hs.documents([n - 17, 17]))
    assert count() == before


def test_a_cuda_graph_holds_the_kernel():
    q, k, v = (torch.randn(2, 4, 128, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    mask = hs.window(30)
    expected = hs.attend(q, k, v, mask=mask, backend="triton")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = hs.attend(q, k, v, mask=mask, backend="triton")
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune"])
def test_a_compiled_training_step_keeps_the_kernel(mode):
    command = [sys.executable, "-W", "ignore", "-m", "tests.attention.compiled_on_gpu", mode]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.stdout.endswith("all equal\n"), done.stderr[-4000:]


def test_autocast_and_training():
    layer = hs.nn.MultiheadAttention(64, 4, num_kv_heads=2).cuda()
    x = torch.randn(2, 130, 64, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        values = layer(x, mask=hs.window(20))
    values.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("mask", [None, hs.causal(), hs.window(40), hs.padding([130, 20])], ids=repr)
def test_every_statistic_in_one_pass(mask):
    q, k, _ = made(grad=False)
    ask = Ask(
        entropy=True, concentration=True, received=True, top=16, mean_map=True, max_map=True, peak=True, cells=(5, 7)
    )  # fmt: skip
    request = Request(q, k, k, mask)
    assert gpu_pass.refusals(request, ask) == []
    seen = gpu_pass.run(request, ask)
    weights, _ = full(q.cpu(), k.cpu(), mask=mask)
    for found, expected in (
        (seen.entropy, torch.special.entr(weights).sum(-1)),
        (seen.concentration, weights.square().sum(-1)),
        (seen.received, weights.sum(2)),
        (seen.peak, weights.amax(-1)),
        (seen.top_weights, weights.topk(16).values),
    ):
        torch.testing.assert_close(found.double().cpu(), expected, rtol=1e-3, atol=1e-3)


def test_a_recording_waits_for_nothing():
    model = torch.nn.MultiheadAttention(64, 4, batch_first=True).cuda().eval()
    x = torch.randn(2, 40, 64, device="cuda")
    with torch.no_grad(), hs.record(model) as recording:
        torch.cuda.set_sync_debug_mode("error")
        try:
            model(x, x, x)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(recording[0, 1].entropy()).all()


def test_a_model_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    hs.hf.register()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="headscope").cuda().eval()
    ids = torch.randint(97, (2, 33), device="cuda")
    with torch.no_grad():
        mine = model(ids).logits
        model.set_attn_implementation("eager")
        theirs = model(ids).logits
    torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-2)
