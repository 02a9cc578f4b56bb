"""attend, attend_lse, plan and the textbook formula: what is refused, who runs, and what torch does with the same."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa
from torch.overrides import TorchFunctionMode

import headscope as hs
from headscope.attention import plan as plans
from headscope.errors import BackendRefused, HeadscopeError, MaskError, ShapeError
from tests import warm

X = torch.randn(2, 4, 5, 8)


@pytest.mark.parametrize(
    ("q", "k", "v", "message"),
    [
        (X[0], X[0], X[0], "must have four axes"),
        (X, X[:1], X, "batches of 2, 1 and 2; the three must be equal"),
        (X, X[..., :3], X, "a query has 8 features and a key has 3"),
        (X, X, X[:, :, :4], "each key needs exactly one value"),
        (X, X[:, :3], X[:, :3], "4 is not a multiple of 3. For grouped queries"),
        (X, X[:, :0], X[:, :0], "4 is not a multiple of 0"),
        (X, X.double(), X, "give the three one dtype"),
        (X.int(), X.int(), X.int(), "attention needs float64"),
        (X, X.to("meta"), X, "move the three to one device"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_inputs_that_do_not_fit(q, k, v, message):
    from headscope.shapes import check_qkv

    with pytest.raises(ShapeError, match=message):
        check_qkv("attend", q, k, v)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"softcap": 0.0}, ShapeError, "softcap=0.0; it bounds the scores"),
        ({"softcap": -1.0}, ShapeError, "give a number above 0"),
        ({"dropout": 1.0}, ShapeError, "dropout=1.0; give the probability"),
        ({"backend": "fuzed"}, BackendRefused, "did you mean 'fused'"),
        ({"backend": "fused", "softcap": 2.0}, BackendRefused, "has no softcap"),
        (
            {"backend": "flex", "dropout": 0.5, "bias": hs.dense_bias(torch.zeros(5, 5))},
            BackendRefused,
            "no dropout; a dense bias",
        ),
    ],
)
def test_options_that_do_not_fit(options, error, message):
    with pytest.raises(error, match=message) as caught:
        hs.attend(X, X, X, **options)
    assert isinstance(caught.value, HeadscopeError | ValueError)


def test_an_explicit_choice_runs_there_or_raises():
    refused = hs.plan(X, X, X).refusals
    for name in plans.PATHS:
        if refused[name]:
            with pytest.raises(BackendRefused, match=r"backend '\w+' cannot run this: "):
                hs.plan(X, X, X, backend=name)
            continue
        plan = hs.plan(X, X, X, backend=name)
        assert plan.backend == name
        assert plan.why == "it was asked for by name"


def test_the_plan_tells_who_runs_why_and_who_refused():
    window = hs.plan(*(torch.zeros(1, 8, 4096, 64),) * 3, mask=hs.window(63))
    assert window.backend == "tiled"
    assert "of all pairs" in window.why
    assert window.flops == 2 * 8 * int(hs.window(63).to_dense(4096, 4096).sum()) * 128
    assert window.bytes == 4 * 8 * 4096 * 64 * 4
    capped = hs.plan(X, X, X, softcap=5.0, dropout=0.1)
    assert capped.backend == "tiled"
    assert len(capped.refusals["fused"]) == 2
    text = str(capped)
    assert "fused: scaled_dot_product_attention has no softcap; with dropout" in text
    assert "GFLOP" in text
    assert hs.plan(X, X, X, mask=hs.dense(torch.rand(5, 5) > 0.5)).backend == "fused"
    assert hs.plan(X, X, X, mask=hs.causal()).backend == "fused"


def test_an_out_of_memory_is_torch_s_own_and_says_what_it_was_for():
    x = torch.zeros(1, 1, 2**22, 1)
    with pytest.raises(RuntimeError, match="allocate memory") as caught:
        hs.attend(x, x, x, backend="formula")
    assert caught.value.__notes__ == [
        "hs.attend ran this on 'formula'; its inputs and output take 67.1 MB, "
        "and that path writes the queries x keys matrix out."
    ]


def test_other_errors_get_no_note(monkeypatch):
    def broken(request):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(plans.formula, "run", broken)
    with pytest.raises(RuntimeError, match="no kernel") as caught:
        hs.attend(X, X, X, backend="formula")
    assert not hasattr(caught.value, "__notes__")


def test_long_structured_masks_never_build_a_matrix():
    """A causal chunk onto a cache, windows, documents and paddings of a long input all run in tiles."""
    q, k = torch.zeros(1, 2, 512, 64), torch.zeros(1, 2, 8192, 64)
    assert hs.plan(q, k, k, mask=hs.causal()).backend == "tiled"
    for mask in (hs.window(100), hs.causal() & hs.documents([4096] * 2), hs.padding([8192 // 2])):
        assert hs.plan(k, k, k, mask=mask).backend == "tiled"


def test_the_formula_is_sdpa():
    q, k, v = (torch.randn(2, 3, n, 5, dtype=torch.float64, requires_grad=True) for n in (7, 11, 11))
    allowed = torch.rand(2, 1, 7, 11) > 0.3
    added = torch.randn(7, 11, dtype=torch.float64)
    for mask in (None, allowed, added):
        values, weights = hs.scaled_dot_product(q, k, v, mask)
        torch.testing.assert_close(values, sdpa(q, k, v, attn_mask=mask))
        torch.testing.assert_close(weights @ v, values)
    values, weights = hs.scaled_dot_product(q, k, v, hs.causal())
    assert (weights[..., 0, 5:] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 7, dtype=torch.float64))
    grads = (torch.autograd.grad(x.sin().sum(), (q, k, v)) for x in (values, hs.attend(q, k, v, mask=hs.causal())))
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_formula_refuses_masks_that_do_not_fit():
    with pytest.raises(MaskError, match=r"the mask is \(3, 3\) and the scores are \(2, 4, 5, 5\)"):
        hs.scaled_dot_product(X, X, X, torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(MaskError, match="the mask is torch.int64; give booleans"):
        hs.scaled_dot_product(X, X, X, torch.ones(5, 5, dtype=torch.int64))


def test_grouped_queries_equal_repeated_keys():
    q, k, v = torch.randn(2, 6, 7, 4), torch.randn(2, 2, 9, 4), torch.randn(2, 2, 9, 3)
    repeated = (x.repeat_interleave(3, 1) for x in (k, v))
    torch.testing.assert_close(hs.attend(q, k, v), sdpa(q, *repeated))
    one = hs.attend(q[:, :, :1], k, v, mask=hs.causal())
    torch.testing.assert_close(one, hs.attend(q, k, v)[:, :, :1])


def test_the_lse_is_float32_for_low_precision_and_counts_keys():
    for dtype, wide in (
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        zeros = torch.zeros(1, 1, 3, 4, dtype=dtype)
        lse = hs.attend_lse(zeros, zeros, zeros)[1]
        assert lse.dtype == wide
        torch.testing.assert_close(lse, torch.full((1, 1, 3), math.log(3), dtype=wide))


def test_weights_do_not_depend_on_the_value_they_are_given():
    """Two values apart by a constant: the weights sum to one, on every path."""
    q, k, v = (torch.randn(1, 2, 9, 5, dtype=torch.float64) for _ in range(3))
    for backend in ("fused", "tiled", "formula"):
        shifted = hs.attend(q, k, v + 1.0, mask=hs.causal(), backend=backend)
        torch.testing.assert_close(shifted, hs.attend(q, k, v, mask=hs.causal(), backend=backend) + 1.0)


def run_unchecked(marks):
    """Run unchecked_cases.py in a process of its own."""
    cases = Path(__file__).parent / "unchecked_cases.py"
    options = ["-q", "-o", "addopts=", "--import-mode=importlib", "-m", marks]
    done = warm.run_module("pytest", *options, str(cases))
    assert done.returncode == 0, done.stdout[-5000:]


def test_what_only_shows_without_the_shape_checks_of_the_tests():
    """Compiled modules, and arguments of the wrong type, as users run them."""
    run_unchecked("not slow")


@pytest.mark.slow
def test_flexattention_compiled():
    run_unchecked("slow")


@pytest.mark.parametrize("function", [hs.attend, hs.attend_lse])
def test_a_function_mode_sees_one_call_with_all_its_arguments(function):
    class Sees(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is function:
                seen.append((args, kwargs))
            return func(*args, **(kwargs or {}))

    seen, (q, k, v) = [], torch.randn(3, 1, 2, 5, 4)
    options = {"mask": hs.causal(), "bias": hs.alibi(2), "scale": 0.3, "softcap": 7.0, "sinks": torch.ones(2)}
    options |= {"dropout": 0.0, "backend": "formula"}
    with Sees():
        function(q, k, v, **options)
    ((args, kwargs),) = seen
    assert all(one is other for one, other in zip(args, (q, k, v), strict=True))
    assert kwargs == options
