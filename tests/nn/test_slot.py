"""The places of a cache in transforms of torch.func: a prompt that is shared, and continued by every sample."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, jvp, vmap

import headscope as hs
from headscope.errors import ShapeError
from headscope.nn import KeyValueCache, MultiheadAttention, Rotary


def prompted() -> tuple[MultiheadAttention, KeyValueCache, torch.Tensor]:
    """A layer, a cache with four positions of one sequence, and three ways to go on."""
    torch.manual_seed(0)
    layer = MultiheadAttention(12, 3, num_kv_heads=1, rotary=Rotary(4))
    cache = KeyValueCache(layer, 1)
    with torch.no_grad():
        layer(torch.randn(1, 4, 12), mask=hs.causal(), cache=cache)
    return layer, cache, torch.randn(3, 2, 12)


@pytest.mark.parametrize("gradients", [False, True])
def test_samples_continue_copies_of_one_prompt(gradients: bool) -> None:
    layer, cache, samples = prompted()

    def continued(x: torch.Tensor) -> torch.Tensor:
        return layer(x[None], mask=hs.causal(), cache=cache.copy())

    with torch.set_grad_enabled(gradients):
        found, want = vmap(continued)(samples), torch.stack([continued(x) for x in samples])
        torch.testing.assert_close(found, want)
        tangent = jvp(continued, (samples[0],), (samples[1],))[1]
    torch.testing.assert_close(tangent.double(), differences(continued, samples), atol=1e-3, rtol=1e-2)
    assert cache.seen == 4


def differences(function, samples: torch.Tensor) -> torch.Tensor:
    """The derivative at the first sample along the second, from two values."""
    step = 1e-2
    return (function(samples[0] + step * samples[1]) - function(samples[0] - step * samples[1])).double() / (2 * step)


def test_gradients_of_each_sample_after_a_prompt() -> None:
    layer, cache, samples = prompted()

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        options = {"mask": hs.causal(), "cache": cache.copy()}
        return functional_call(layer, parameters, (x[None],), options).square().sum()

    parameters = dict(layer.named_parameters())
    each = vmap(grad(loss), (None, 0))({name: p.detach() for name, p in parameters.items()}, samples)
    for n, x in enumerate(samples):
        wanted = torch.autograd.grad(loss(parameters, x), list(parameters.values()))
        for name, want in zip(parameters, wanted, strict=True):
            torch.testing.assert_close(each[name][n], want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", ["vmap", "fake"])
def test_a_cache_that_was_filled_in_a_mode_is_named_afterwards(mode: str) -> None:
    layer, cache, samples = prompted()
    if mode == "vmap":
        vmap(lambda x: layer(x[None], mask=hs.causal(), cache=cache))(samples)
    else:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            layer(torch.ones(1, 1, 12), mask=hs.causal(), cache=(cache := KeyValueCache(layer, 1)))
    with pytest.raises(ShapeError, match=r"filled inside of a transform of torch.func or of FakeTensorMode"):
        layer(samples[:1], mask=hs.causal(), cache=cache)
