"""One query on a cache: what the last query sees as plain numbers, and calls that need no plan."""

import pytest
import torch

import headscope as hs
from headscope.attention.direct import direct
from headscope.attention.masks.window import Slice
from headscope.errors import MaskError
from tests.attention.cases import masks, qkv

K = 11
CPU = torch.device("cpu")


def kinds() -> dict[str, hs.Mask]:
    """Every mask that is one for a single query, for three items of five heads."""
    found = {name: mask for name, mask in masks(1, K, 3, 5).items() if mask is not None}
    return found | {"between": hs.window(7) & hs.padding([9, 5, 2]), "left": hs.dense(torch.arange(K)[None] > 3)}


def seen(mask: hs.Mask, keys: int) -> torch.Tensor:
    """What `last_query` says, written out."""
    found = mask.last_query(keys, CPU)
    out = torch.zeros(found.items, found.heads, 1, keys, dtype=torch.bool)
    for first, last in found.ranges:
        out[..., first:last] = True if found.among is None else found.among.to_dense(1, last - first)
    return out


class TestLastQuery:
    @pytest.mark.parametrize("name", kinds())
    def test_it_is_the_last_row_of_the_mask(self, name):
        mask = kinds()[name]
        for other in kinds().values():
            for made in (mask, mask & other, mask | other, (mask | hs.first(1)) & other):
                want = made.to_dense(1, K)
                assert torch.equal(seen(made, K).expand(3, 5, 1, K), want.expand(3, 5, 1, K)), made

    def test_a_key_more_makes_nothing_new(self):
        window, padding = hs.window(4) & hs.causal(), hs.padding([5, 2, 3])
        assert [window.last_query(n, CPU).ranges for n in (3, 8, 9)] == [((0, 3),), ((3, 8),), ((4, 9),)]
        assert padding.last_query(7, CPU) is padding.last_query(8, CPU)
        joined = hs.causal() & padding
        assert joined.last_query(7, CPU) is joined.last_query(8, CPU) is padding.last_query(9, CPU)
        kept = (hs.first(2) | hs.window(2)) & hs.causal()
        assert kept.last_query(50, CPU).ranges == ((0, 2), (47, 50))
        assert kept.last_query(50, CPU).among is None
        # Few keys lie between: a mask costs less than copies.
        assert kept.last_query(8, CPU).ranges == ((0, 8),)
        assert kept.last_query(8, CPU).among is not None

    def test_lengths_that_do_not_fit_are_refused_at_any_length(self):
        padding = hs.padding([5, 2])
        padding.last_query(7, CPU)
        with pytest.raises(MaskError, match="holds 5 and there are 4 keys"):
            padding.last_query(4, CPU)

    def test_a_slice_is_its_range_for_every_query(self):
        mask = Slice(3, 8, K)
        assert mask.last_query(K, CPU).ranges == ((3, 8),)
        assert Slice(4, 4, K).last_query(K, CPU).ranges == ()
        wanted = torch.arange(K).ge(3) & torch.arange(K).lt(8)
        for queries in (1, 5):
            assert torch.equal(mask.to_dense(queries, K), wanted.expand(1, 1, queries, K))
        for ask in (lambda: mask.last_query(K + 1, CPU), lambda: mask.runs(1, K - 1)):
            with pytest.raises(MaskError, match=r"keys\(3 to 7 of 11\): asked for 1[02] keys; this mask is only for"):
                ask()

    def test_numbers_on_another_device_are_not_waited_for(self):
        assert hs.window(3).last_query(K, torch.device("meta")).ranges == ((7, 11),)
        assert hs.padding([5, 2]).last_query(K, torch.device("meta")) is None
        assert (hs.documents([1], [K]) & hs.causal()).last_query(K, torch.device("meta")) is None


class TestOneQuery:
    @pytest.mark.parametrize("name", kinds())
    @pytest.mark.parametrize("extra", ["plain", "sinks", "softcap", "bias", "alibi"])
    def test_values_and_gradients(self, name, extra):
        q, k, v = qkv(b=3, h=10, g=5, q=1, k=K, d=7, e=7)
        mask = kinds()[name]
        if mask.to_dense(1, K).shape[1] == 5:
            k, v = (x.detach().repeat_interleave(2, 1).requires_grad_() for x in (k, v))
            mask = hs.dense(mask.to_dense(1, K).repeat_interleave(2, 1))
        options = {
            "plain": {}, "sinks": {"sinks": torch.randn(10, dtype=torch.float64)}, "softcap": {"softcap": 2.0},
            "bias": {"bias": hs.dense_bias(torch.randn(1, 10, 1, K, dtype=torch.float64))},
            "alibi": {"bias": hs.alibi(10)},
        }[extra]  # fmt: skip
        found = hs.attend(q, k, v, mask=mask, **options)
        want = hs.attend(q, k, v, mask=mask, backend="formula", **options)
        torch.testing.assert_close(found, want)
        weight = torch.randn_like(want)
        for got, wanted in zip(
            torch.autograd.grad((found * weight).sum(), (q, k, v)),
            torch.autograd.grad((want * weight).sum(), (q, k, v)),
            strict=True,
        ):
            torch.testing.assert_close(got, wanted)
        torch.testing.assert_close(hs.attend_lse(q, k, v, mask=mask, **options)[0], want)

    @pytest.mark.parametrize(("mask", "what"), [(hs.padding([3, 4]), "2 batch items"), (hs.first([3] * 4), "4 batch")])
    def test_a_mask_for_another_batch_is_refused(self, mask, what):
        q, k, v = qkv(b=3, q=1, k=K)
        with pytest.raises(MaskError, match=what):
            hs.attend(q, k, v, mask=mask)

    def test_the_plan_says_so(self):
        q, k, v = torch.zeros(3, 2, 4, 1, 8)
        k = v = torch.zeros(2, 4, K, 8)
        assert hs.plan(q, k, v, mask=hs.padding([3, 4])).why == "one query reads the keys that it may see"
        assert hs.plan(q, k, v, mask=hs.window(3)).backend == "fused"
        assert hs.plan(q, k, v, mask=hs.window(3), backend="tiled").backend == "tiled"


class TestDirect:
    def test_it_is_torch_s_kernel(self):
        q, k, v = (x.detach() for x in qkv(e=5))
        for mask in (None, hs.padding([17, 5]), hs.window(3)):
            found = direct(q, k, v, mask, None)
            torch.testing.assert_close(found, hs.attend(q, k, v, mask=mask, backend="formula"))

    @pytest.mark.parametrize("name", kinds())
    def test_sinks_need_no_plan(self, name):
        q, k, v = (x.detach() for x in qkv(b=3, h=5, g=5, q=1, k=K, d=7, e=7))
        sinks = torch.randn(5, dtype=torch.float64)
        mask = kinds()[name]
        found = direct(q, k, v, mask, 0.3, sinks)
        want = hs.attend(q, k, v, mask=mask, scale=0.3, sinks=sinks, backend="formula")
        if mask.to_dense(1, K).any():
            torch.testing.assert_close(found, want)
        else:  # nothing to compute
            assert found is None

    @pytest.mark.parametrize("heads", [1, 10])
    def test_sinks_of_heads_that_share_keys(self, heads):
        q, k, v = (x.detach() for x in qkv(b=3, h=10, g=5, q=1, k=K, d=7, e=7))
        sinks = torch.randn(10, dtype=torch.float64)
        mask = hs.dense(torch.rand(3, heads, 1, K, generator=torch.Generator().manual_seed(3)) > 0.4)
        found = direct(q, k, v, mask, None, sinks)
        torch.testing.assert_close(found, hs.attend(q, k, v, mask=mask, sinks=sinks, backend="formula"))

    def test_sinks_that_are_special_are_planned(self):
        q, k, v = (x.detach() for x in qkv(b=3, h=5, g=5, q=2, k=K, d=7, e=7))
        sinks = torch.randn(5, dtype=torch.float64)
        assert direct(q, k, v, None, None, sinks) is None
        one = q[:, :, :1]
        assert direct(one, k, v, None, None, sinks[:4]) is None
        assert direct(one, k, v, None, None, sinks.requires_grad_()) is None
        with torch.no_grad():
            assert direct(one, k, v, None, None, sinks) is not None

    def test_what_is_special_is_planned(self):
        q, k, v = (x.detach() for x in qkv(e=5))
        for args in (
            (q, k, v[..., :3], None, None),
            (q, k, v, None, -1.0),
            (q.mT.contiguous().mT, k, v, None, None),
            (q, k, v, hs.padding([1, 2, 3]), None),
            (q[0], k[0], v[0], None, None),
            (q, k.float(), v, None, None),
            (q, k, v, torch.ones(11, 17, dtype=torch.bool), None),
            (q[:, :5], k, v, None, None),
        ):
            assert direct(*args) is None
        with torch.autocast("cpu", torch.bfloat16):
            assert direct(q, k, v, None, None) is None
        assert torch.func.vmap(lambda x: torch.tensor(direct(x, k, v, None, None) is None))(q[None]).all()

    def test_what_inference_mode_kept_serves_training(self):
        q, k, v = qkv(e=5)
        for rows in (11, 1):
            mask = hs.padding([17, 5]) & hs.window(9)
            with torch.inference_mode():
                first = hs.attend(q[:, :, -rows:], k, v, mask=mask)
            again = hs.attend(q[:, :, -rows:], k, v, mask=mask)
            assert torch.equal(first, again)
            again.sum().backward()

    def test_a_second_derivative_without_a_scale(self):
        q, k, v = (x.detach().requires_grad_() for x in qkv(b=1, h=2, g=1, q=3, k=3, d=2, e=2))
        assert torch.autograd.gradgradcheck(lambda *x: hs.attend(*x, mask=hs.causal()), (q, k, v))
