"""Relations that torch's own tests of scaled dot-product attention state, held on every path."""

import math

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

import headscope as hs

B, H, Q, K, D, E = 2, 3, 7, 11, 5, 13
PATHS = ("fused", "tiled", "formula")

every_path = pytest.mark.parametrize("backend", PATHS)


def inputs(q=Q, k=K, d=D, e=D, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(B, H, n, size, generator=g, dtype=dtype) for n, size in ((q, d), (k, d), (k, e))]


def gradients(values, tensors):
    torch.manual_seed(1)
    return torch.autograd.grad(values, tensors, torch.randn(values.shape, dtype=values.dtype))


@every_path
@pytest.mark.parametrize("scale", [-0.3, -2.0, 0.0])
def test_a_scale_that_is_negative_or_zero(backend, scale):
    q, k, v = (x.requires_grad_() for x in inputs())
    mask = hs.window(3)
    found = hs.attend(q, k, v, mask=mask, scale=scale, backend=backend)
    expected = sdpa(q, k, v, attn_mask=mask.to_dense(Q, K), scale=scale)
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(gradients(found, (q, k, v)), gradients(expected, (q, k, v)), strict=True):
        torch.testing.assert_close(mine, theirs)


@every_path
@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded", "one packed tensor"])
def test_the_layout_in_memory_changes_nothing(backend, layout):
    q, k, v = inputs(k=Q)
    expected = hs.attend(q, k, v, mask=hs.causal(), backend="formula")
    if layout == "transposed":
        q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    elif layout == "strided":
        q, k, v = (torch.stack((x, x + 1), -1)[..., 0] for x in (q, k, v))
        assert q.stride(3) == 2
    elif layout == "expanded":
        k, v = (x[:1].expand(B, -1, -1, -1) for x in (k, v))
        expected = hs.attend(q, k.contiguous(), v.contiguous(), mask=hs.causal(), backend="formula")
    else:
        q, k, v = torch.cat((q, k, v), dim=-1).split(D, dim=-1)
    torch.testing.assert_close(hs.attend(q, k, v, mask=hs.causal(), backend=backend), expected)


@every_path
def test_values_of_another_size_than_keys(backend):
    q, k, v = (x.requires_grad_() for x in inputs(e=E))
    found, expected = hs.attend(q, k, v, backend=backend), sdpa(q, k, v)
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(gradients(found, (q, k, v)), gradients(expected, (q, k, v)), strict=True):
        torch.testing.assert_close(mine, theirs)


@every_path
@pytest.mark.parametrize("needed", [(True, False, False), (False, True, False), (False, False, True)])
def test_gradients_of_some_inputs_only(backend, needed):
    tensors = [x.requires_grad_(want) for x, want in zip(inputs(), needed, strict=True)]
    wanted = [x for x in tensors if x.requires_grad]
    (found,) = gradients(hs.attend(*tensors, mask=hs.causal(), backend=backend), wanted)
    (expected,) = gradients(sdpa(*tensors, attn_mask=hs.causal().to_dense(Q, K)), wanted)
    torch.testing.assert_close(found, expected)


@every_path
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_call_twice_gives_the_same_bits(backend, dtype):
    q, k, v = (x.requires_grad_() for x in inputs(67, 89, dtype=dtype))
    once, twice = (hs.attend(q, k, v, mask=hs.window(31), backend=backend) for _ in range(2))
    assert torch.equal(once, twice)
    for a, b in zip(gradients(once, (q, k, v)), gradients(twice, (q, k, v)), strict=True):
        assert torch.equal(a, b)


@every_path
def test_keys_that_nobody_sees_may_hold_anything_finite(backend):
    q, k, v = inputs()
    mask = hs.padding([K - 4, K - 4])
    expected = hs.attend(q, k, v, mask=mask, backend=backend)
    k[:, :, K - 4 :], v[:, :, K - 4 :] = 1e6, -1e6
    torch.testing.assert_close(hs.attend(q, k, v, mask=mask, backend=backend), expected, rtol=0, atol=0)


@every_path
def test_a_causal_mask_is_the_mask_written_out_and_the_additive_one(backend):
    q, k, v = inputs(k=Q)
    added = torch.full((Q, Q), -math.inf, dtype=q.dtype).triu(1)
    mask, bias = hs.from_additive(added)
    assert bias is None
    found = [hs.attend(q, k, v, mask=m, backend=backend) for m in (hs.causal(), mask, hs.dense(added == 0))]
    for one in found:
        torch.testing.assert_close(one, sdpa(q, k, v, is_causal=True))
