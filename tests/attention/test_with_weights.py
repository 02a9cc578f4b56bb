import pytest
import torch

import headscope as hs
from headscope.attention import with_weights
from headscope.attention.request import Request
from headscope.attention.with_weights import attend_weights

D = torch.float64


def inputs(dtype: torch.dtype = D, groups: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        torch.randn(3, 4, 5, 8, dtype=dtype, requires_grad=True),
        torch.randn(3, groups, 7, 8, dtype=dtype, requires_grad=True),
        torch.randn(3, groups, 7, 11, dtype=dtype, requires_grad=True),
    )


MASKS = {
    "none": None,
    "causal": hs.causal(),
    "padding": hs.padding([7, 0, 3]),
    "window": hs.window(1),
    "empty rows": hs.dense(torch.arange(5)[:, None] % 2 == torch.zeros(7)),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("biased", [False, True])
def test_values_and_weights_are_those_of_attend_and_of_the_formula(mask: str, biased: bool) -> None:
    q, k, v = inputs()
    bias = hs.alibi(4) if biased else None
    values, weights = attend_weights(q, k, v, mask=MASKS[mask], bias=bias)
    expected = hs.attend(q, k, v, mask=MASKS[mask], bias=bias, backend="formula")
    torch.testing.assert_close(values, expected)
    direction = torch.randn_like(values)
    wanted, got = (torch.autograd.grad((x * direction).sum(), (q, k, v), retain_graph=True) for x in (expected, values))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)
    if not biased:
        torch.testing.assert_close(weights, hs.scaled_dot_product(q, k, v, MASKS[mask])[1])
    assert torch.autograd.grad(weights.square().sum(), q)[0].isfinite().all()


def test_second_derivatives_and_vmap() -> None:
    q, k, v = (x.detach()[:, :, :3, :4].contiguous() for x in inputs(groups=4))
    q.requires_grad_()
    mask = hs.causal()
    assert torch.autograd.gradgradcheck(lambda q: attend_weights(q, k, v, mask=mask)[1], q)
    batched = torch.func.vmap(lambda q: attend_weights(q, k, v, mask=mask)[0])(torch.stack([q, 2 * q]))
    torch.testing.assert_close(batched[1], attend_weights(2 * q, k, v, mask=mask)[0])


def test_weights_are_float32_and_values_have_the_dtype_of_the_inputs() -> None:
    values, weights = attend_weights(*inputs(torch.bfloat16))
    assert (values.dtype, weights.dtype) == (torch.bfloat16, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        values, weights = attend_weights(*inputs(torch.float32))
    assert (values.dtype, weights.dtype) == (torch.bfloat16, torch.float32)


def test_what_dropout_drops_is_dropped_from_both() -> None:
    q, k, v = inputs()
    values, weights = attend_weights(q, k, v, dropout=0.5)
    assert (weights == 0).any()
    torch.testing.assert_close(values, weights @ v.repeat_interleave(2, 1))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("groups", [2, 4])
# 5 · 7 weights a head: three heads of one item at a time, then one; two rows of a head, then one; row by row.
@pytest.mark.parametrize("piece", [107, 16, 4])
def test_pieces_give_what_one_product_gives(
    mask: str, groups: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = (x.detach() for x in inputs(groups=groups))
    bias = hs.dense_bias(torch.randn(1, 4, 5, 7, dtype=D))
    whole = attend_weights(q, k, v, mask=MASKS[mask], bias=bias)
    monkeypatch.setattr(with_weights, "PIECE", piece // torch.get_num_threads())
    assert with_weights.pays_in_pieces(Request(q, k, v))
    torch.testing.assert_close(attend_weights(q, k, v, mask=MASKS[mask], bias=bias), whole)
    values, mean = attend_weights(q, k, v, mask=MASKS[mask], bias=bias, average=True)
    torch.testing.assert_close((values, mean), (whole[0], whole[1].mean(1, keepdim=True)))
