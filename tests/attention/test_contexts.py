"""What stands around a call: autocast, `sdpa_kernel`, transforms of whole layers."""

import pytest
import torch
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import headscope as hs
from headscope.errors import BackendRefused, ShapeError
from tests.attention.cases import masks, qkv

PATHS = (None, "fused", "tiled", "formula")


def paths(*tensors, **options):
    """The paths that take a call."""
    refusals = hs.plan(*tensors, **options).refusals
    return [path for path in PATHS if path is None or not refusals[path]]


class TestAutocast:
    @pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("n", [5, 300])
    @pytest.mark.parametrize("name", ["none", "causal", "window", "sinks and window", "dense"])
    def test_the_dtype_is_that_of_autocast_on_every_path_and_at_every_length(self, low, n, name):
        tensors = qkv(b=1, q=n, k=n, d=8, e=8, dtype=torch.float32)
        mask = masks(n, n, 1, 6)[name]
        with torch.autocast("cpu", low):
            torchs = scaled_dot_product_attention(*(x[:, :3] for x in tensors)).dtype
            for path in paths(*tensors, mask=mask):
                values = hs.attend(*tensors, mask=mask, backend=path)
                assert values.dtype == torchs == low
                found = torch.autograd.grad(values.sum(), tensors)
                assert all(g.dtype == torch.float32 and g.isfinite().all() for g in found)
            values, lse = hs.attend_lse(*tensors, mask=mask)
        assert (values.dtype, lse.dtype) == (low, torch.float32)
        exact = hs.attend(*(x.to(low).double() for x in tensors), mask=mask, backend="formula")
        torch.testing.assert_close(values.double(), exact, atol=4 * torch.finfo(low).eps, rtol=0)

    def test_mixed_inputs_biases_and_sinks_become_one_dtype(self):
        q, k, v = qkv(dtype=torch.float32)
        options = {"bias": hs.dense_bias(torch.randn(11, 17)), "sinks": torch.randn(6)}
        with torch.autocast("cpu", torch.bfloat16):
            mixed = hs.attend(q.bfloat16(), k, v.half(), **options)
            assert mixed.dtype == torch.bfloat16
            wide = hs.attend(q.double(), k.double(), v.double())
            assert wide.dtype == torch.float64
        with pytest.raises(ShapeError, match=r"bfloat16.*float32.*float16.*autocast"):
            hs.attend(q.bfloat16(), k, v.half())

    @pytest.mark.parametrize("dropout", [0.0, 0.1])
    def test_a_layer_gives_the_dtype_of_torch_s(self, dropout):
        x = torch.randn(2, 5, 16)
        theirs = torch.nn.MultiheadAttention(16, 4, dropout=dropout, batch_first=True)
        ours = hs.nn.MultiheadAttention(16, 4, dropout=dropout)
        with torch.autocast("cpu", torch.bfloat16):
            assert ours(x).dtype == theirs(x, x, x)[0].dtype
            ours(x).float().sum().backward()
        assert all(p.grad.isfinite().all() for p in ours.parameters())


class TestKernelsThatTorchAllows:
    def test_the_unfused_one_alone(self):
        q, k, v = qkv(dtype=torch.float32)
        mask = hs.window(3)
        want = hs.attend(q, k, v, mask=mask, backend="formula")
        with sdpa_kernel(SDPBackend.MATH):
            torch.testing.assert_close(hs.attend(q, k, v, mask=mask), want, atol=1e-6, rtol=1e-5)
            found = hs.attend_lse(q, k, v, mask=mask, softcap=2.0)[1]
            plan = hs.plan(q, k, v, mask=mask, softcap=2.0)
            assert plan.backend == "formula"
            assert any("sdpa_kernel(...)" in reason for reason in plan.refusals["tiled"])
            with pytest.raises(
                BackendRefused, match=r"torch's sdpa_kernel\(...\) allows no kernel but the unfused one"
            ):
                hs.attend(q, k, v, mask=mask, backend="tiled")
        torch.testing.assert_close(found, hs.attend_lse(q, k, v, mask=mask, softcap=2.0)[1], atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("mask", [None, hs.causal(), hs.window(3)])
    @pytest.mark.parametrize("backend", PATHS)
    def test_none_that_a_cpu_has(self, mask, backend):
        q, k, v = qkv(b=1, q=5, k=5, dtype=torch.float32)
        with (
            sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION),
            pytest.raises(BackendRefused, match=r"cannot run this: .*sdpa_kernel|no backend can run this: .*MATH"),
        ):
            hs.attend(q, k, v, mask=mask, backend=backend)

    def test_a_gradient_penalty_inside_and_outside(self):
        found = []
        for backends in ([SDPBackend.MATH], [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            q, k, v = qkv(q=31, k=37)
            with sdpa_kernel(backends):
                values = hs.attend(q, k, v, mask=hs.window(3))
            (first,) = torch.autograd.grad(values.pow(2).sum(), q, create_graph=True)
            found.append(torch.autograd.grad(first.pow(2).sum(), (q, k, v)))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-7)


class TestManyDerivativesAtOnce:
    """`torch.autograd.functional` and `is_grads_batched`, which have a vmap of their own below `torch.func`."""

    OPTIONS = (
        {},
        {"mask": hs.causal()},
        {"mask": hs.window(3), "backend": "tiled"},
        {"mask": hs.window(3), "softcap": 2.0, "bias": hs.alibi(6), "backend": "tiled"},
    )

    @pytest.mark.parametrize("options", OPTIONS)
    def test_of_gradients(self, options):
        q, k, v = qkv(b=1, q=7, k=7)
        directions = torch.randn(3, 1, 6, 7, 7, dtype=torch.float64)
        values = hs.attend(q, k, v, **options)
        found = torch.autograd.grad(values, (q, k, v), directions, is_grads_batched=True, retain_graph=True)
        for n, direction in enumerate(directions):
            for many, one in zip(
                found, torch.autograd.grad(values, (q, k, v), direction, retain_graph=True), strict=True
            ):
                torch.testing.assert_close(many[n], one)

    @pytest.mark.parametrize("options", [x | {"backend": None} for x in OPTIONS])
    @pytest.mark.parametrize("how", ["reverse-mode", "forward-mode"])
    def test_of_jacobians(self, options, how):
        x = torch.randn(1, 6, 3, 2, dtype=torch.float64)

        def total(x):
            return hs.attend(x, x, x, **options).sin().sum((0, 1, 3))

        want = torch.autograd.functional.jacobian(total, x)
        found = torch.autograd.functional.jacobian(total, x, vectorize=True, strategy=how)
        torch.testing.assert_close(found, want)


def test_numbers_of_python_are_kept_where_new_tensors_have_none():
    """As in layers that are built under `torch.device("meta")` and loaded later."""
    with torch.device("meta"):
        masks = hs.padding([3, 11]), hs.prefix(2), hs.documents([4, 7])
        bias = hs.alibi(6)
    q, k, v = qkv(q=11, k=11)
    for mask, fresh in zip(masks, (hs.padding([3, 11]), hs.prefix(2), hs.documents([4, 7])), strict=True):
        want = hs.attend(q, k, v, mask=fresh, bias=hs.alibi(6))
        assert torch.equal(hs.attend(q, k, v, mask=mask, bias=bias), want)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_kv_heads": 2},
        {"rotary": True},
        {"sinks": True, "softcap": 2.0},
    ],
    ids=["plain", "grouped", "rotary", "sinks and softcap"],
)
@pytest.mark.parametrize("mask", [None, hs.window(2), hs.causal()])
def test_gradients_of_each_sample_of_a_layer(options, mask):
    """As in differential privacy: vmap over the batch, grad over the parameters."""
    torch.manual_seed(0)
    options = options | ({"rotary": hs.nn.Rotary(4)} if "rotary" in options else {})
    layer, x = hs.nn.MultiheadAttention(16, 4, **options), torch.randn(3, 5, 16)

    def loss(parameters, one):
        return functional_call(layer, parameters, (one[None],), {"mask": mask}).pow(2).sum()

    parameters = dict(layer.named_parameters())
    each = vmap(grad(loss), (None, 0))({name: p.detach() for name, p in parameters.items()}, x)
    for n, one in enumerate(x):
        layer.zero_grad()
        layer(one[None], mask=mask).pow(2).sum().backward()
        for name, p in parameters.items():
            torch.testing.assert_close(each[name][n], p.grad, atol=1e-5, rtol=1e-4)
