"""{record, ablate zero, ablate mean, patch, importance} x every place where attention is called.

Each works and equals the same change made by hand in the formula.
"""

import sys

import pytest
import torch

import headscope as hs
from headscope.calls import blocks, sites
from tests.calls.models import SITES, B, H, M, N, build, flash_kernel, heads_of, merged, stand_ins

NAMES = list(SITES)
# FlexAttention and varlen_attn have no backward pass on a CPU.
TRAINABLE = [name for name in NAMES if name not in ("flex", "varlen")]
CHOSEN = [(0, 1), (0, 3)]


@pytest.fixture(autouse=True)
def libraries(monkeypatch):
    for name, module in stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    import torch.nn.attention.flex_attention
    import torch.nn.attention.varlen  # which registers what is replaced here

    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", flash_kernel)


def inputs(seed: int = 3) -> torch.Tensor:
    return torch.randn(B, N, M, generator=torch.Generator().manual_seed(seed))


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_record(name):
    model, x = build(name), inputs()
    plain = model(x)
    with hs.record(model) as recording:
        during = model(x)
    assert torch.equal(plain, during)
    weights, values = heads_of(x)
    assert [layer.number for layer in recording.layers] == [0]
    assert recording.missed == ()
    for head in range(H):
        for item in range(B):
            # The one item of varlen_attn is all items; what Longformer pads stands behind them.
            one, first = (recording[0, head], item * N) if name == "varlen" else (recording[0, head, item], 0)
            rows = slice(first, first + N)
            close(one.weights()[rows, rows], weights[item, head])
            close(one.values()[rows], values[item, head])


@torch.no_grad()
def test_every_site_has_a_model_here(monkeypatch):
    seen, capture = set(), blocks.capture
    monkeypatch.setattr(
        blocks, "capture", lambda what, *args, **others: (seen.add(what), capture(what, *args, **others))
    )
    for name in NAMES:
        model = build(name)
        with hs.record(model):
            model(inputs())
    assert seen == {site.name for site in sites.SITES}


@pytest.mark.parametrize("how", ["zero", "mean", "recording"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_ablate(name, how):
    model, x = build(name), inputs()
    values = heads_of(x)[1]
    with hs.record(model) as recording:
        plain = model(x)
    for _, head in CHOSEN:
        mean = values[:, head].mean(1, keepdim=True)
        values[:, head] = {"zero": torch.zeros(()), "mean": mean, "recording": mean.mean(0, keepdim=True)}[how]
    with hs.ablate(model, CHOSEN, how=recording if how == "recording" else how):
        without = model(x)
    close(without, merged(values))
    assert torch.equal(model(x), plain)


@pytest.mark.parametrize("what", ["output", "weights"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_patch(name, what):
    model, x, other = build(name), inputs(), inputs(11)
    with hs.record(model) as recording:
        model(other)
    values, (others_weights, others_values) = heads_of(x)[1], heads_of(other)
    v = build("sdpa").qkv(x).unflatten(-1, (3, H, M // H)).permute(2, 0, 3, 1, 4)[2]
    for _, head in CHOSEN:
        values[:, head] = others_values[:, head] if what == "output" else others_weights[:, head] @ v[:, head]
    with hs.patch(model, recording, CHOSEN, what=what):
        close(model(x), merged(values))


@pytest.mark.parametrize("name", TRAINABLE)
def test_importance(name):
    model, x = build(name), inputs()
    values = heads_of(x)[1].detach()
    gates = torch.ones(B, H, 1, 1, requires_grad=True)
    merged(values * gates).square().mean().backward()
    found = hs.importance(model, lambda: model(x).square().mean())
    close(found, gates.grad.abs().sum(0).flatten()[None])


@pytest.mark.parametrize("name", TRAINABLE)
def test_recorded_in_the_graph(name):
    """With `grad=True` what a call returned is a node of the model's graph, and its numbers are the model's."""
    model, x = build(name), inputs()
    plain = model(x)
    with hs.record(model, grad=True) as recording:
        output = model(x)
    assert torch.equal(output, plain)
    layer = recording.layers[0]
    (found,) = torch.autograd.grad(output.square().mean(), layer.output)
    values = heads_of(x)[1].detach().requires_grad_()
    (want,) = torch.autograd.grad(merged(values).square().mean(), values)
    close(found[:, :, :N], want)
    # What is computed of the recording reaches the parameters of the model.
    layer.q.square().sum().backward()
    assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) > 0
