"""What tests of the Triton path share: run in a process in which Triton's interpreter is switched on.

`python -m tests.attention.triton_cases sample|all` checks values, lse and all gradients against the float64 formula.
"""

import sys

import tests.interpreter  # noqa: F401  # isort: skip
import torch

import headscope as hs
from headscope.attention.paths import formula, triton
from headscope.attention.paths.triton import launch_split
from headscope.attention.request import Request
from tests.attention.cases import everything, extras, learned, masks

SIZES = {"b": 2, "h": 4, "g": 2, "q": 19, "k": 23, "d": 5, "e": 7}
# Masks with options that between them take every branch of the kernels.
SAMPLE = (("packed causal", "softcap"), ("sinks and window", "trained slopes"), ("padded both", "sinks"))
# What a path says that knows the interpreter of Triton as it is, not as tests/interpreter.py mends it.
INTERPRETED = "Triton's interpreter multiplies bfloat16 as integers; give float32 or float16 there"
# By dtype: what one rounding of inputs, weights and outputs may leave.
TOLERANCES = {torch.float32: 3e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}


def options(name, mask, sizes, dtype):
    """The options of that name, with learned tensors in a dtype of parameters."""
    made = torch.Generator().manual_seed(3)
    own = extras(sizes["h"], sizes["q"], sizes["k"], dtype)
    own["trained slopes"] = {"bias": hs.alibi(torch.rand(sizes["h"], generator=made).to(dtype).requires_grad_())}
    # Made in the dtype of the oracle first, so that both have the same numbers.
    return own[name] | {"mask": masks(sizes["q"], sizes["k"], sizes["b"], sizes["h"])[mask]}


def inputs(sizes, dtype):
    """q, k and v, the same numbers for every dtype that holds them."""
    b, h, g, q, k, d, e = sizes.values()
    made = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=made).to(dtype) for s in ((b, h, q, d), (b, g, k, d), (b, g, k, e))]


def errors(mask, extra, dtype=torch.float32, sizes=SIZES):
    """The largest difference of values, lse and each gradient from the formula in float64, over the largest number."""
    given = inputs(sizes, dtype)
    results = []
    for run, wide in ((triton.run, None), (formula.run, torch.float64)):
        q, k, v = (x.to(wide or dtype).detach().requires_grad_() for x in given)
        asked = options(extra, mask, sizes, wide or torch.float32)
        if wide:
            for mine, theirs in zip(learned(asked), learned(options(extra, mask, sizes, torch.float32)), strict=True):
                mine.data.copy_(theirs.data)
        request = Request(q, k, v, **asked)
        if not wide:
            refused = triton.refusals(request)
            assert refused == ([INTERPRETED] if dtype == torch.bfloat16 else []), refused
        results.append(everything(lambda: run(request), [q, k, v, *learned(asked)]))  # noqa: B023
    found = []
    for mine, theirs in zip(*results, strict=True):
        assert torch.equal(mine.isneginf(), theirs.isneginf())
        mine, theirs = (x.double().masked_fill(x.isneginf(), 0.0) for x in (mine, theirs))
        found.append(float((mine - theirs).abs().max() / theirs.abs().max().clamp(min=1.0)))
    return found


def check(mask, extra, dtype=torch.float32, sizes=SIZES):
    """Raise unless every number is within what the dtype allows."""
    found = errors(mask, extra, dtype, sizes)
    assert max(found) < TOLERANCES[dtype], (mask, extra, dtype, found)


def dropout(mask):
    """Dropout drops its share, gives the same bits for the same seed, and has the gradients of what it dropped."""
    q, k, v = (x.requires_grad_() for x in inputs(SIZES, torch.float32))
    request = Request(q, k, v, masks(19, 23, 2, 4)[mask], dropout=0.3)

    def again():
        torch.manual_seed(7)
        return triton.run(request)

    values, lse = again()
    assert torch.equal(values, again()[0])
    grads = torch.autograd.grad(values.square().sum(), (q, k, v), create_graph=True)
    written = values.grad_fn
    options_, factors = written.options, triton.path.dropout_factors(written.options, q, k)
    share = float((factors == 0).double().mean())
    assert abs(share - 0.3) < 0.05, share
    oracle = triton.path.formula(options_, q, k)(q.double(), k.double(), v.double(), None, None)
    torch.testing.assert_close(values.double(), oracle[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lse.double(), oracle[1], rtol=1e-4, atol=1e-5)
    expected = torch.autograd.grad(oracle[0].square().sum(), (q, k, v))
    for mine, theirs in zip(grads, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    # And the derivative of a gradient, from the formula.
    assert torch.autograd.grad(grads[0].sum(), k)[0].isfinite().all()


def decoding(mask, extra, sizes, parts):
    """A few queries, split over the keys into so many parts: values and lse, which need no gradient."""
    from headscope.attention.device import device_of

    q, k, v = inputs(sizes, torch.float32)
    asked = options(extra, mask, sizes, torch.float32)
    request = Request(q, k, v, **asked)
    launch_split.LEAST_KEYS = 1
    request.device = device_of(q.device)._replace(processors=parts * k.shape[0] * k.shape[1] // 2 or 1)
    with torch.no_grad():
        found = triton.run(request)
        expected = formula.run(Request(q.double(), k.double(), v.double(), **asked))
    assert torch.equal(found[1].isneginf(), expected[1].isneginf())
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=1e-4, atol=1e-5)


def everywhere():
    """Every mask with every option, every dtype, and head sizes on both sides of a padded one."""
    names = masks(19, 23, 2, 4)
    refused = {"dense bias", "shared bias", "all"}
    for extra in [*(set(extras(4, 19, 23)) - refused), "trained slopes"]:
        for mask in names:
            check(mask, extra)
    for dtype in (torch.float16, torch.bfloat16):
        for extra in ("plain", "softcap", "sinks", "alibi"):
            check("packed causal", extra, dtype)
    for d, e in ((16, 16), (17, 8), (64, 40), (131, 256)):
        check("prefix", "plain", sizes=SIZES | {"b": 1, "d": d, "e": e})
    for q, k in ((1, 23), (23, 1), (1, 1), (16, 32)):
        check("causal", "relative", sizes=SIZES | {"q": q, "k": k})
    for h, g in ((1, 1), (5, 1), (3, 3)):
        check("window", "alibi", sizes=SIZES | {"h": h, "g": g})
    for mask in ("none", "packed causal"):
        dropout(mask)
    for q, k, parts in ((1, 97, 4), (3, 61, 2), (5, 23, 1)):
        for extra in ("plain", "softcap", "sinks", "alibi", "relative"):
            for mask in ("causal", "padding", "sinks and window", "dense per head", "nothing"):
                decoding(mask, extra, SIZES | {"q": q, "k": k}, parts)


def sample():
    """A few masks and options, and a step of decoding."""
    for mask, extra in SAMPLE:
        check(mask, extra, sizes=SIZES | {"b": 2 if "padded" in mask else 1, "h": 2, "g": 1})
    decoding("sinks and window", "sinks", SIZES | {"b": 1, "q": 3, "k": 61}, 3)


if __name__ == "__main__":
    {"sample": sample, "dropout": lambda: dropout("packed causal"), "all": everywhere}[sys.argv[1]]()
    print("all equal")
