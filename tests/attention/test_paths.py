"""Every path that does not refuse gives the values, the lse and all gradients of the float64 formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import headscope as hs
from headscope.attention.paths import formula, fused, tiled
from headscope.attention.paths.tiled import schedule, scored
from headscope.attention.request import Request
from tests.attention.cases import everything, extras, learned, masks, qkv

SIZES = {"b": 2, "h": 6, "q": 11, "k": 17}
MASKS = list(masks(11, 17, 2, 6))
EXTRAS = list(extras(6, 11, 17))


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of scores so small that even these sizes need many."""
    for name, size in {"ROWS": 8, "KEYS": 5, "BLOCK": 120}.items():
        monkeypatch.setattr(scored, name, size)


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("mask", MASKS)
def test_the_tiled_path_is_the_formula(mask, extra, small_blocks):
    q, k, v = qkv()
    options = extras(6, 11, 17)[extra] | {"mask": masks(11, 17, 2, 6)[mask]}
    wanted = [q, k, v, *learned(options)]
    found = everything(lambda: tiled.run(Request(q, k, v, **options)), wanted)
    expected = everything(lambda: formula.run(Request(q, k, v, **options)), wanted)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("mask", MASKS)
def test_the_fused_path_is_the_formula(mask):
    q, k, v = qkv()
    for given_bias in (None, hs.dense_bias(torch.randn(1, 6, 11, 17, dtype=torch.float64))):
        options = {"mask": masks(11, 17, 2, 6)[mask], "bias": given_bias}
        assert fused.refusals(Request(q, k, v, **options)) == []
        found, expected = (run(Request(q, k, v, **options))[0] for run in (fused.run, formula.run))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
        grads = [
            torch.autograd.grad(values.square().sum(), (q, k, v), allow_unused=True) for values in (found, expected)
        ]
        for mine, theirs in zip(*grads, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("sinks", [None, torch.linspace(-1, 2, 6, dtype=torch.float64)])
def test_the_fused_lse_is_the_formula_s(mask, sinks):
    q, k, v = (t.detach() for t in qkv())
    request = Request(q, k, v, masks(11, 17, 2, 6)[mask], sinks=sinks, needs_lse=True)
    assert fused.refusals(request) == []
    for found, expected in zip(fused.run(request), formula.run(request), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "mask",
    [
        hs.window(70),
        hs.window(40, 20),
        hs.window(300),
        hs.causal() & hs.documents([103] * 5 + [2]),
        hs.first(3) | hs.window(50),
    ],
    ids=repr,
)
@pytest.mark.parametrize("extra", ["plain", "sinks", "alibi", "softcap"])
def test_long_bands_and_packed_documents(mask, extra):
    """Long enough for copies of tiles, spare keys and several spans."""
    n = 517
    q, k, v = qkv(1, 6, 3, n, n, 5, 7)
    options = extras(6, 1, 1)[extra] | {"mask": mask}
    wanted = [q, k, v, *learned(options)]
    found = everything(lambda: tiled.run(Request(q, k, v, **options)), wanted)
    expected = everything(lambda: formula.run(Request(q, k, v, **options)), wanted)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)
    tiles = tiled.of(Request(q, k, v, **options))
    assert tiles.area < 6 * n * n


def test_documents_with_as_many_keys_and_other_numbers_of_queries():
    """A tile is a copy of the one above it only where it has as many rows."""
    queries, keys = [64, 100, 64, 128], [80] * 4
    q, k, v = qkv(1, 6, 3, sum(queries), sum(keys), 5, 7)
    request = Request(q, k, v, hs.documents(queries, keys))
    for mine, theirs in zip(tiled.run(request), formula.run(request), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("mask", [hs.first(2) | hs.window(40), hs.causal()], ids=repr)
def test_gradients_of_keys_that_many_tiles_see_are_summed_in_float32(mask):
    """In bfloat16 the sum of many tiles would lose what each of them adds; torch's own kernel sums in float32."""
    n = 1021
    q, k, v = (x.detach().bfloat16().requires_grad_() for x in qkv(1, 2, 1, n, n, 16, 16))
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    grad = torch.rand(1, 2, n, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64).bfloat16()
    hs.attend(q, k, v, mask=mask, backend="tiled").backward(grad)
    formula.run(Request(*exact, mask))[0].backward(grad.double())
    for mine, theirs in zip((k, v), exact[1:], strict=True):
        apart = (mine.grad.double() - theirs.grad).abs().amax() / theirs.grad.abs().amax()
        assert float(apart) < 2 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("mask", [None, hs.causal(), hs.padding([59])], ids=repr)
@pytest.mark.parametrize("extra", ["alibi", "relative"])
def test_a_bias_over_more_rows_than_a_tile_has(mask, extra, monkeypatch):
    monkeypatch.setattr(schedule, "TRIANGLE_ROWS", 7)
    monkeypatch.setattr(schedule, "RECTANGLE_ROWS", 11)
    q, k, v = qkv(1, 6, 3, 61, 61, 5, 7)
    options = {"mask": mask, "bias": extras(6, 1, 1)["alibi"]["bias"]}
    if extra == "relative":
        options["bias"] = hs.relative(torch.randn(8, 6, dtype=torch.float64, requires_grad=True), max_distance=9)
    request = Request(q, k, v, **options)
    tall = {tile.rows.stop - tile.rows.start for group in tiled.of(request).groups for tile in group}
    assert max(tall) <= 11
    wanted = [q, k, v, *learned(options)]
    found = everything(lambda: tiled.run(Request(q, k, v, **options)), wanted)
    expected = everything(lambda: formula.run(Request(q, k, v, **options)), wanted)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kernel", ["flash", "scored"])
def test_gradcheck(kernel):
    q, k, v = qkv(1, 2, 1, 5, 7, 3, 3)
    sinks = torch.randn(2, dtype=torch.float64, requires_grad=True)
    table = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)

    def run(q, k, v, sinks, table):
        bias = hs.relative(table, max_distance=5) if kernel == "scored" else None
        values, lse = tiled.run(
            Request(q, k, v, hs.window(3, 1), bias, softcap=2.0 if kernel == "scored" else None, sinks=sinks)
        )
        return values, lse

    if kernel == "flash":
        table = table.detach()
    torch.autograd.gradcheck(run, (q, k, v, sinks, table))


def test_a_query_that_sees_nothing_gives_zeros_and_no_gradient_on_every_path():
    q, k, v = qkv()
    mask = hs.padding([5, 0], [3, 11])
    for backend in ("fused", "tiled", "formula"):
        values = hs.attend(q, k, v, mask=mask, backend=backend)
        assert (values[0, :, 3:] == 0).all()
        assert (values[1] == 0).all()
        grads = torch.autograd.grad(values.sum(), (q, k, v))
        assert all(g.isfinite().all() for g in grads)
        assert (grads[0][1] == 0).all()
    _, lse = hs.attend_lse(q, k, v, mask=mask)
    assert lse[1].isneginf().all()
    assert lse[0, :, :3].isfinite().all()


@pytest.mark.parametrize("backend", ["fused", "tiled", "formula"])
@pytest.mark.parametrize(("q", "k"), [(0, 3), (3, 0), (1, 1), (0, 0), (1, 5)])
def test_no_and_single_positions(backend, q, k):
    x, y, z = qkv(q=q, k=k)
    values = hs.attend(x, y, z, mask=hs.causal(), backend=backend)
    assert values.shape == (2, 6, q, 7)
    assert values.isfinite().all()
    values.sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mask", ["none", "causal", "left window", "packed causal", "padded both", "dense"])
def test_the_error_is_within_twice_torch_s_own(dtype, mask):
    """The budget of the design, against SDPA in the same dtype on the same input: twice its error, and one rounding."""
    n = 131
    q, k, v = (t.detach() for t in qkv(2, 6, 3, n, n, 32, 32, dtype))
    asked = masks(n, n, 2, 6)[mask]
    exact, _ = formula.run(Request(q.double(), k.double(), v.double(), asked))
    dense = None if asked is None else asked.to_dense(n, n)
    torch_s = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=dense, enable_gqa=True)
    rounding = torch.finfo(dtype).eps * exact.abs().max()
    budget = 2 * (torch_s.double() - exact).abs().max() + rounding
    for backend in ("fused", "tiled"):
        error = (hs.attend(q, k, v, mask=asked, backend=backend).double() - exact).abs().max()
        assert error <= budget, backend


@given(
    seed=st.integers(0, 2**16),
    sizes=st.tuples(
        st.sampled_from([1, 2, 3]),
        st.sampled_from([(1, 1), (2, 1), (6, 3), (5, 5)]),
        st.integers(1, 23),
        st.integers(1, 29),
    ),
    d=st.sampled_from([(1, 1), (3, 5), (8, 2)]),
    kinds=st.lists(st.sampled_from(MASKS), min_size=1, max_size=3),
    both=st.booleans(),
    extra=st.sampled_from(EXTRAS),
)
def test_any_combination_is_the_formula(seed, sizes, d, kinds, both, extra):
    b, (h, g), queries, keys = sizes
    q, k, v = qkv(b, h, g, queries, keys, *d, seed=seed)
    known = masks(queries, keys, b, h)
    mask = known[kinds[0]]
    for kind in kinds[1:]:
        other = known[kind]
        if mask is not None and other is not None:
            mask = mask & other if both else mask | other
    options = extras(h, queries, keys)[extra] | {"mask": mask}
    wanted = [q, k, v, *learned(options)]
    found = everything(lambda: hs.attend_lse(q, k, v, **options), wanted)
    expected = everything(lambda: hs.attend_lse(q, k, v, backend="formula", **options), wanted)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_dropout_is_unbiased_reproducible_and_leaves_the_lse_alone():
    q, k, v = (t.detach() for t in qkv(1, 2, 2, 13, 19, 8, 8))
    _, plain = hs.attend_lse(q, k, v, mask=hs.causal())
    torch.manual_seed(7)
    first, lse = hs.attend_lse(q, k, v, mask=hs.causal(), dropout=0.4)
    torch.manual_seed(7)
    again = hs.attend(q, k, v, mask=hs.causal(), dropout=0.4)
    torch.testing.assert_close(first, again)
    torch.testing.assert_close(lse, plain)
    draws = torch.stack([hs.attend(q, k, v, mask=hs.causal(), dropout=0.4) for _ in range(800)])
    spread = draws.std(0) / len(draws) ** 0.5
    exact = hs.attend(q, k, v, mask=hs.causal())
    assert ((draws.mean(0) - exact).abs() <= 5 * spread + 1e-9).all()


def test_dropout_drops_the_same_weights_in_the_backward():
    q, k, v = qkv(1, 2, 1, 7, 11, 3, 3)

    def run(q, k, v):
        torch.manual_seed(3)
        return hs.attend(q, k, v, mask=hs.window(4, 2), dropout=0.5)

    torch.autograd.gradcheck(run, (q, k, v))


def test_nan_and_infinity_pass_through():
    q, k, v = (t.detach() for t in qkv(1, 1, 1, 150, 150, 4, 4))
    v[0, 0, 3] = float("nan")
    q[0, 0, 7] = float("inf")
    values = hs.attend(q, k, v, mask=hs.window(2))
    assert values[0, 0, 3].isnan().all()
    assert values[0, 0, 7].isnan().all()
    tiles = hs.attend(q, k, v, mask=hs.window(2), backend="tiled")
    assert tiles[0, 0, 3].isnan().all()
    assert tiles[0, 0, 140].isfinite().all()  # no tile of this row holds the NaN
