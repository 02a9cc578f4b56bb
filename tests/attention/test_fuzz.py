"""Any call of `hs.attend` there is: no crash, no NaN, and an error of at most twice torch's own."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import headscope as hs
from headscope.errors import BackendRefused
from tests.attention.fuzzed import Call, calls, reference

BACKENDS = (None, "fused", "tiled", "formula")
# Half of the numbers that a test draws have more than this error: one rounding of a result, and of what it is made of.
ROUNDINGS = 2.0


def exact(call: Call) -> tuple[list[Tensor], list[Tensor]]:
    """Values and lse in float64, and the gradients of what `pulled` adds up."""
    q, k, v = (x.detach().double().requires_grad_() for x in (call.q, call.k, call.v))
    sinks = call.options.get("sinks")
    added = None if call.added is None else call.added()
    results = reference(call, q, k, v, added, None if sinks is None else sinks.double())
    return results, gradients(results, [q, k, v, *call.learned])


def ours(call: Call, backend: str | None) -> tuple[list[Tensor], list[Tensor]]:
    """The same from `hs.attend_lse`, on one path."""
    q, k, v = leaves(call)
    results = list(hs.attend_lse(q, k, v, **call.keywords, backend=backend))
    return results, gradients(results, [q, k, v, *call.learned])


def without_gradients(call: Call, backend: str | None) -> tuple[list[Tensor], list[Tensor]]:
    """Values and lse where nothing trains, and the values of `hs.attend`, in the place of gradients."""
    with torch.no_grad():
        results = list(hs.attend_lse(call.q, call.k, call.v, **call.keywords, backend=backend))
        alone = hs.attend(call.q, call.k, call.v, **call.keywords, backend=backend)
    return results, [alone]


def torchs(call: Call) -> tuple[list[Tensor], list[Tensor]]:
    """The same from torch's own function, without what it does not have: softcap and sinks; its lse is left out."""
    q, k, v = leaves(call)
    allowed = call.allowed()
    mask = torch.zeros(allowed.shape, dtype=q.dtype) if call.added is None else call.added().detach().to(q.dtype)
    mask = mask.masked_fill(~allowed, -math.inf)
    share = q.shape[1] // k.shape[1]
    wide = [x.repeat_interleave(share, 1) for x in (k, v)]
    values = scaled_dot_product_attention(q, *wide, attn_mask=mask, scale=call.scale)
    results = [values.masked_fill(~allowed.any(-1, keepdim=True), 0.0)]
    return results, gradients(results, [q, k, v])


def leaves(call: Call) -> list[Tensor]:
    """q, k and v as they lie in memory, asking for gradients."""
    return [x.detach().requires_grad_() for x in (call.q, call.k, call.v)]


def gradients(results: list[Tensor], wanted: list[Tensor]) -> list[Tensor]:
    """Gradients of a sum that weighs every number differently."""
    total = sum(
        (x.masked_fill(x == -math.inf, 0.0).double() * pull(x)).sum() for x in results if x.requires_grad and x.numel()
    )
    if not isinstance(total, Tensor):
        return [torch.zeros_like(x) for x in wanted]
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, wanted, strict=True)]


def pull(x: Tensor) -> Tensor:
    """Weights from -1 to 1, the same for the same shape."""
    return torch.linspace(-1.0, 1.0, x.numel(), dtype=torch.float64).view(x.shape)


def error(found: list[Tensor], want: list[Tensor]) -> float:
    """The largest difference; of numbers that are infinite, whether the same ones are."""
    worst = 0.0
    for mine, theirs in zip(found, want, strict=True):
        assert mine.shape == theirs.shape
        assert torch.equal(mine.isinf(), theirs.isinf())
        assert not mine.isnan().any()
        if mine.numel():
            a, b = (x.detach().double().masked_fill(x.isinf(), 0.0) for x in (mine, theirs))
            worst = max(worst, float((a - b).abs().max()))
    return worst


def check(call: Call) -> None:
    """One call, on every path that takes it, with gradients and without."""
    want, steep = exact(call)
    theirs, their_steep = torchs(call)
    # Without features, or with a scale of 0 or less, torch itself may give NaN; softcap and sinks it does not have.
    like_torch = call.options["softcap"] is None and "sinks" not in call.options
    good = like_torch and not any(x.isnan().any() for x in (*theirs, *their_steep))
    eps = torch.finfo(call.q.dtype).eps
    fine = min(eps, torch.finfo(torch.float32).eps)
    scores = largest([call.scores(), want[1]])
    # On a few numbers torch may be exact by luck: half a unit of the largest score is what its rounding may cost. Where
    # torch has no such call, there is nothing to compare with, and a few such roundings are allowed.
    room = ROUNDINGS * eps + (0.5 if good else 4.0) * fine * scores
    most = 2 * error(theirs, want[:1]) * good + room * largest([call.v, *want[:1]])
    # The gradient of a score is a difference of products with values, and rounds with their size. That of a key or of
    # something learned is a sum over rows, whose terms may cancel.
    rows = call.q.shape[1] // call.k.shape[1] * call.q.shape[2]
    steepest = largest([*steep, call.v])
    most_steep = 2 * error(their_steep, steep[:3]) * good + 2 * room * (steepest + (0 if good else rows / 2))
    most_learned = most_steep + 2 * room * call.q.shape[0] * call.q.shape[2] / 2
    # The kernels of torch for 16 bits take an exponential of 14 bits or better.
    most_lse = max(16 * fine * scores, 2**-13 if eps > 1e-4 else 0.0)
    for backend in BACKENDS:
        for run in (ours, without_gradients):
            try:
                found, mine = run(call, backend)
            except BackendRefused:
                assert backend is not None
                continue
            assert error(found[:1], want[:1]) <= most, (backend, run)
            assert error(found[1:], want[1:]) <= most_lse, (backend, run)
            if run is without_gradients:
                assert error(mine, want[:1]) <= most, (backend, "attend")
                continue
            assert error(mine[:3], steep[:3]) <= most_steep, (backend, run)
            assert error(mine[3:], steep[3:]) <= most_learned, (backend, run)


def largest(tensors: list[Tensor]) -> float:
    """The largest finite number of all, at least 1."""
    finite = [x.detach().double().masked_fill(~x.detach().isfinite(), 0.0) for x in tensors if x.numel()]
    return max([1.0, *(float(x.abs().max()) for x in finite)])


@given(calls())
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_sample_of_calls(call):
    note(str(call))
    check(call)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(calls())
@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_three_thousand_calls(call):
    note(str(call))
    check(call)
