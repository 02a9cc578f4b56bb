"""The private names that tell modes apart: each one removed in turn, and everything without such a mode still works."""

import pytest
import torch

import headscope as hs
from headscope.attention import known, precision
from headscope.attention.paths import fused
from headscope.compat import names, tracing
from headscope.compat.names import Private

NAMES = [one for one in vars(tracing).values() if isinstance(one, Private)]


def without(monkeypatch, name):
    """Take a private name away, and look again for those that are found once."""
    # Hidden from headscope alone: torch itself uses most of them.
    look_up = names.look_up
    monkeypatch.setattr(
        names, "look_up", lambda path, load=True: look_up(path, load=load) if path != name.path else None
    )
    assert name.find() is None
    new = tracing.found()
    monkeypatch.setattr(tracing, "NAMES", new)
    for target, field in (
        ("_jit_trace", "jit_trace"), ("_transforms", "transforms"), ("_is_transformed", "transformed"),
        ("_dispatch_modes", "dispatch_modes"), ("_dispatch_mode", "dispatch_mode"), ("_FAKE", "fake"),
        ("_PROXY", "proxy"), ("_TransformType", "transform_type"),
    ):  # fmt: skip
        monkeypatch.setattr(known, target, getattr(new, field))
    monkeypatch.setattr(precision, "_any_autocast", new.any_autocast)
    for target, kernel in zip(("_flash", "_efficient", "_cudnn", "_math"), new.kernels, strict=True):
        monkeypatch.setattr(precision, target, kernel)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.path)
def test_attention_its_gradients_and_recordings_work_without_each(name, monkeypatch):
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, 3, n, 5, requires_grad=True) for n in (7, 11, 11))
    layer = torch.nn.TransformerEncoderLayer(6, 2, 7, batch_first=True).eval()
    x = torch.randn(2, 7, 6)

    def run():
        values = hs.attend(q, k, v, mask=hs.causal())
        with torch.autocast("cpu", torch.bfloat16):
            half = hs.attend(q, k, v)
        with hs.record(layer) as recording:
            layer(x)
        return [values, *torch.autograd.grad(values.square().sum(), (q, k, v)), half, recording[0, 1].weights()]

    wanted = run()
    without(monkeypatch, name)
    for mine, theirs in zip(run(), wanted, strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)


def test_a_trace_is_known_by_the_public_name(monkeypatch):
    without(monkeypatch, tracing.JIT_TRACE)
    seen = []

    def look(x):
        seen.append(known.jit_tracing())
        return x + 1

    torch.jit.trace(look, torch.ones(2))
    assert True in seen
    assert not known.jit_tracing()


def test_kernels_are_known_by_the_public_names(monkeypatch):
    for name in (tracing.FLASH_SDP, tracing.EFFICIENT_SDP, tracing.CUDNN_SDP):
        without(monkeypatch, name)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert precision.only_math(torch.device("cpu"))
        assert precision.only_math(torch.device("cuda"))
    assert not precision.only_math(torch.device("cpu"))


def test_without_the_running_node_second_derivatives_raise_torchs_own_error(monkeypatch):
    q, k, v = (torch.randn(1, 2, 5, 4, requires_grad=True) for _ in range(3))
    wanted = torch.autograd.grad(hs.attend(q, k, v, backend="fused").sum(), q)[0]
    without(monkeypatch, tracing.CURRENT_NODE)
    (first,) = torch.autograd.grad(hs.attend(q, k, v, backend="fused").sum(), q, create_graph=True)
    assert torch.equal(first, wanted)
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.autograd.grad(first.square().sum(), q)
    assert fused.SAVED


def test_outside_of_a_transform_every_tensor_may_be_followed(monkeypatch):
    without(monkeypatch, tracing.UNWRAPPED)
    x = torch.randn(1, 2, 5, 4)
    grad = torch.func.grad(lambda q: hs.attend(q, x, x).square().sum())(x)
    y = x.clone().requires_grad_()
    hs.attend(y, x, x).square().sum().backward()
    torch.testing.assert_close(grad, y.grad)
