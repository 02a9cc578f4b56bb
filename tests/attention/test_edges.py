"""Edges of `hs.attend`, on every path, against the reference of the fuzzer: nothing to see, nothing to see with."""

import pytest
import torch

import headscope as hs
from tests.attention.cases import qkv
from tests.attention.fuzzed import Call, Who
from tests.attention.test_fuzz import check


def call(q=5, k=5, d=4, e=3, dtype=torch.float32, mask=False, **options) -> Call:
    """A call of one item and six heads on three heads of keys."""
    tensors = (x.detach() for x in qkv(b=1, q=q, k=k, d=d, e=e, dtype=dtype))
    who = Who("causal", hs.causal(), lambda n, m, i, j: j <= i + k - q) if mask else None
    sinks = options.get("sinks")
    return Call(
        *tensors, who, options={"scale": None, "softcap": None} | options, learned=[] if sinks is None else [sinks]
    )


def sinks(dtype=torch.float32) -> torch.Tensor:
    return torch.linspace(-1, 2, 6).to(dtype).requires_grad_()


@pytest.mark.parametrize("scale", [-1.0, 0.0, 1e-30, 0.5])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("softcap", [None, 1.3])
def test_any_scale(scale, mask, softcap):
    check(call(scale=scale, mask=mask, softcap=softcap))
    check(call(scale=scale, mask=mask, softcap=softcap, sinks=sinks()))


@pytest.mark.parametrize("sizes", [(2, 3, 0, 4), (2, 3, 4, 0), (2, 3, 0, 0), (1, 0, 4, 3), (0, 3, 4, 3), (0, 0, 4, 3)])
@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        *(pytest.param(one, marks=pytest.mark.slow) for one in (torch.float16, torch.float32, torch.float64)),
    ],
)
@pytest.mark.parametrize("mask", [False, True])
def test_no_features_no_keys_no_queries(sizes, dtype, mask):
    check(call(*sizes, dtype=dtype, mask=mask))
    check(call(*sizes, dtype=dtype, mask=mask, sinks=sinks(dtype)))


@pytest.mark.parametrize("backend", [None, "tiled", "formula"])
@pytest.mark.parametrize("sizes", [(0, 0), (0, 3), (3, 0)])
@pytest.mark.parametrize(
    "bias", [hs.alibi(6), hs.relative(torch.randn(8, 6), max_distance=9)], ids=["alibi", "relative"]
)
def test_no_positions_with_a_bias_by_distance(backend, sizes, bias):
    q, k, v = qkv(q=sizes[0], k=sizes[1])
    values = hs.attend(q, k, v, bias=bias, backend=backend)
    assert values.shape == (2, 6, sizes[0], 7)
    assert not any(g.any() for g in torch.autograd.grad(values.sum(), (q, k, v), allow_unused=True) if g is not None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_formula_computes_in_float32_inside(dtype):
    q, k, v = (4 * x for x in qkv(q=61, k=67, d=64, dtype=dtype))
    values, weights = hs.scaled_dot_product(q, k, v)
    assert (values.dtype, weights.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 6, 61), atol=1e-5, rtol=0)
    values, lse = hs.attend_lse(q, k, v, bias=hs.alibi(6), backend="formula")
    assert (values.dtype, lse.dtype) == (dtype, torch.float32)
    exact = hs.attend_lse(*(x.double() for x in (q, k, v)), bias=hs.alibi(6), backend="formula")[1]
    torch.testing.assert_close(lse.double(), exact, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("backend", ["tiled", "formula"])
def test_float64_stays_float64_beside_slopes_of_float32(backend):
    q, k, v = qkv(q=31, k=37)
    slopes = torch.rand(6)
    distance = (torch.arange(37)[None] - torch.arange(31)[:, None] - 6).abs()
    want = hs.attend(q, k, v, bias=hs.dense_bias(-slopes.double()[None, :, None, None] * distance), backend="formula")
    torch.testing.assert_close(hs.attend(q, k, v, bias=hs.alibi(slopes), backend=backend), want, atol=1e-13, rtol=1e-13)


def test_one_query_and_no_keys_of_a_dense_mask():
    q, k, v = qkv(b=1, q=1, k=0)
    assert not hs.attend(q, k, v, mask=hs.dense(torch.zeros(1, 1, 1, 0, dtype=torch.bool))).any()


def test_one_number_for_all_keys_beside_runs_with_holes():
    q, k, v = qkv(q=5, k=67)
    options = {"mask": hs.first(2) | hs.window(3), "bias": hs.dense_bias(torch.randn(2, 6, 5, 1).double())}
    want = hs.attend_lse(q, k, v, backend="formula", **options)
    for found, expected in zip(hs.attend_lse(q, k, v, backend="tiled", **options), want, strict=True):
        torch.testing.assert_close(found, expected)
