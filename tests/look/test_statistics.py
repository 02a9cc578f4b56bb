"""Every statistic equals the same one of the full float64 weights, whatever the call."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings

import headscope as hs
from headscope.attention.request import Request
from headscope.errors import LookError
from headscope.look.kernels import largest, tiles
from headscope.look.kernels import stream as stream_kernel
from headscope.look.kernels.ask import Ask
from headscope.look.kernels.stream import stream
from tests.look.oracle import D, H, K, Q, calls, extras, full, inputs, masks, profile

near = {"rtol": 1e-5, "atol": 2e-6}


def case(groups, mask, extra):
    q, k = inputs(groups)
    kwargs = {"mask": masks()[mask], **extras()[extra]}
    return q, k, kwargs, full(q, k, **kwargs)[0]


def same(found, expected, **tolerance):
    torch.testing.assert_close(found.double(), expected.double(), **(near | tolerance))


@given(calls)
@settings(max_examples=60)
def test_the_statistics_of_a_query(call):
    q, k, kwargs, weights = case(*call)
    # An entropy is a difference of numbers of the size of the scores.
    same(
        hs.look.entropy(q, k, **kwargs), torch.special.entr(weights).sum(-1), atol=1e-5 if call[2] != "sharp" else 1e-4
    )
    same(hs.look.concentration(q, k, **kwargs), weights.square().sum(-1), rtol=2e-5)
    same(hs.look.received(q, k, **kwargs), weights.sum(2))
    grouped = weights.sum(2).unflatten(1, (call[0], -1)).sum(2)
    same(hs.look.received_by_group(q, k, **kwargs), grouped)


@given(calls)
@settings(max_examples=40)
def test_offsets_project_and_top(call):
    q, k, kwargs, weights = case(*call)
    same(hs.look.offsets(q, k, 5, **kwargs), profile(weights, kwargs["mask"], 5))
    W = torch.randn(K, 7, generator=torch.Generator().manual_seed(3))
    same(hs.look.project(q, k, W, **kwargs), weights @ W.double(), atol=1e-5)
    found = hs.look.top(q, k, 5, **kwargs)
    same(found.weights, weights.topk(5).values, rtol=2e-5)
    same(found.weights, weights.gather(3, found.keys), rtol=2e-5)


@given(calls)
@settings(max_examples=40)
@pytest.mark.parametrize("block", [tiles.CPU_BLOCK, 300])
def test_maps_and_everything_together(block, call):
    q, k, kwargs, weights = case(*call)
    rows, columns = 5, 7
    padded = torch.nn.functional.pad(weights, (0, -K % columns, 0, -Q % rows))
    cells = padded.unflatten(3, (-1, columns)).unflatten(2, (-1, rows))
    ones = torch.nn.functional.pad(torch.ones(Q, K), (0, -K % columns, 0, -Q % rows))
    sizes = ones.unflatten(1, (-1, columns)).unflatten(0, (-1, rows)).sum((1, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "CPU_BLOCK", block)
        patch.setattr(tiles, "LEAST_ROWS", 3)
        ask = Ask(
            entropy=True,
            concentration=True,
            received=True,
            top=4,
            mean_map=True,
            max_map=True,
            cells=(rows, columns),
            peak=True,
            leave_out=torch.tensor([0, K - 1]),
        )
        seen = stream(Request(q, k, k, **kwargs), ask)
    same(seen.mean_map, cells.sum((3, 5)) / sizes)
    same(seen.max_map, cells.amax((3, 5)), rtol=2e-5)
    same(seen.received, weights.sum(2))
    same(seen.entropy, torch.special.entr(weights).sum(-1), atol=1e-5 if call[2] != "sharp" else 1e-4)
    same(seen.concentration, weights.square().sum(-1), rtol=2e-5)
    same(seen.peak, weights[..., 1:-1].amax(-1), rtol=2e-5)
    same(seen.top_weights, weights.topk(4).values, rtol=2e-5)
    same(weights.gather(3, seen.top_keys), seen.top_weights, rtol=2e-5)
    lse = full(q, k, **kwargs)[1]
    same(seen.lse, lse)


def test_what_may_not_be_seen_has_a_weight_of_exactly_zero():
    q, k = inputs()
    mask = hs.causal() & hs.padding([0, 31])
    hidden = ~mask.to_dense(Q, K).expand(*q.shape[:2], Q, K)
    found = hs.look.top(q, k, K, mask=mask)
    assert (found.weights[hidden.gather(3, found.keys)] == 0).all()
    assert (hs.look.heatmap(q, k, 64, "max", mask=mask)[hidden] == 0).all()
    assert (hs.look.heatmap(q, k, 64, mask=mask)[hidden] == 0).all()


@pytest.mark.parametrize(("queries", "step", "height"), [(37, 10, 3), (37, 3, 10), (5, 8, 2), (6, 6, 1), (0, 4, 2)])
def test_blocks_have_whole_cells_or_a_part_of_one(queries, step, height):
    blocks = list(tiles.row_blocks(queries, step, height))
    assert [row for rows, _ in blocks for row in range(rows.start, rows.stop)] == list(range(queries))
    for rows, cell in blocks:
        assert rows.stop - rows.start <= max(step, 1)
        assert (rows.stop - rows.start) % cell == 0
        assert rows.start // height == (rows.start + cell - 1) // height


@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_keys_of_a_cell_stand_far_apart(width):
    keys = torch.arange(30).view(3, 10)
    places = tiles.cell_order(keys, width)
    assert torch.equal(tiles.key_order(places, width), keys)
    cells = 10 // width
    for item in places:
        assert (item.view(width, cells) // width == item[:cells] // width).all()


@pytest.mark.parametrize("width", [None, 1, 2, 3, 16, 32, 64, 100])
@pytest.mark.parametrize(("threads", "dtype"), [(1, torch.float32), (99, torch.float32), (1, torch.float64)])
def test_the_largest_are_found_through_pools_of_any_width(width, threads, dtype, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    sizes = [1, *(size for size in largest.pool_sizes(width) if size > 1)]
    assert all(b % a == 0 for a, b in itertools.pairwise(sizes))
    # All different: which of two equal scores is named is left open.
    scores = torch.rand(2, 7, 5 * sizes[-1]).argsort(-1).to(dtype) / 7 - 5
    levels = [scores.view(2, 7, size, -1).amax(2) for size in sizes]
    for count in (1, 3, 8, 5 * sizes[-1]):
        values, keys = largest.Largest(scores.device)(levels, count)
        wanted = scores.topk(count)
        torch.testing.assert_close(values, wanted.values, rtol=0, atol=0)
        assert torch.equal(keys, wanted.indices)


@pytest.mark.parametrize("threads", [1, 99])
def test_inner_products_of_rows(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    a, b = torch.randn(2, 3, 5, 107)
    same(stream_kernel.inner(a, b, torch.empty_like(a)), (a.double() * b.double()).sum(2))


def test_places_in_the_list_of_a_query_that_sees_too_few_keys_name_others_once():
    q, k = inputs()
    keys = hs.look.top(q, k, 6, mask=hs.causal() & hs.window(2)).keys
    assert (keys.sort(dim=-1).values.diff() > 0).all()
    assert keys.max() < K


def test_heatmap_has_at_most_the_cells_that_were_asked_for():
    q, k = inputs()
    weights = full(q, k)[0]
    assert hs.look.heatmap(q, k, 10).shape[2:] == (10, 9)
    same(hs.look.heatmap(q, k, 64), weights)
    same(hs.look.heatmap(q, k, 64, "max"), weights)
    same(hs.look.heatmap(q, k, 1)[..., 0, 0], weights.mean((2, 3)))


def test_top_of_long_rows_with_equal_weights():
    q, k = torch.zeros(1, 1, 3, D), torch.zeros(1, 1, 1009, D)
    found = hs.look.top(q, k, 8)
    assert all(len(set(row.tolist())) == 8 for row in found.keys[0, 0])
    assert int(found.keys.max()) < 1009
    same(found.weights, torch.full((1, 1, 3, 8), 1 / 1009))


@pytest.mark.parametrize("width", [977, 1024, 4099])
@pytest.mark.parametrize("count", [1, 8, 13])
def test_top_of_long_rows(width, count):
    g = torch.Generator().manual_seed(width)
    q, k = torch.randn(1, 2, 67, D, generator=g), torch.randn(1, 1, width, D, generator=g)
    weights = full(q, k)[0]
    found = hs.look.top(q, k, count)
    same(found.weights, weights.topk(count).values, rtol=2e-5)
    same(weights.gather(3, found.keys), found.weights, rtol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_looked_at_in_float32(dtype):
    q, k = inputs(2, dtype=dtype)
    weights = full(q, k, mask=hs.causal())[0]
    for found, expected in (
        (hs.look.entropy(q, k, mask=hs.causal()), torch.special.entr(weights).sum(-1)),
        (hs.look.received(q, k, mask=hs.causal()), weights.sum(2)),
        (hs.look.offsets(q, k, 0, mask=hs.causal())[..., 0], weights.diagonal(K - Q, 2, 3).mean(-1)),
    ):
        assert found.dtype == torch.float32
        same(found, expected, atol=1e-5)


def test_float64_stays_float64():
    q, k = (x.double() for x in inputs())
    weights = full(q, k)[0]
    same(hs.look.entropy(q, k), torch.special.entr(weights).sum(-1), rtol=1e-12, atol=1e-12)
    same(hs.look.concentration(q, k), weights.square().sum(-1), rtol=1e-12, atol=1e-12)


def test_huge_scores_do_not_overflow():
    q, k = inputs()
    q = q * 1000
    weights = full(q, k)[0]
    seen = stream(Request(q, k, k), Ask(entropy=True, received=True, top=1))
    same(seen.received, weights.sum(2), atol=1e-3)
    assert seen.entropy.isfinite().all()
    assert (seen.top_weights <= 1.0 + 1e-6).all()


GRADIENTS = {
    "entropy": hs.look.entropy,
    "concentration": hs.look.concentration,
    "received": hs.look.received,
    "received_by_group": hs.look.received_by_group,
    "offsets": lambda q, k, **kwargs: hs.look.offsets(q, k, 2, **kwargs),
    "project": lambda q, k, **kwargs: hs.look.project(q, k, torch.arange(5.0, dtype=q.dtype)[:, None].sin(), **kwargs),
}


@pytest.mark.parametrize("name", sorted(GRADIENTS))
@pytest.mark.parametrize("extra", ["plain", "causal", "holes", "softcap", "bias", "sinks", "everything"])
def test_gradients(name, extra):
    g = torch.Generator().manual_seed(5)
    q, k = (torch.randn(*size, generator=g, dtype=torch.float64) for size in ((1, 2, 3, 4), (1, 1, 5, 4)))
    bias, sinks = torch.randn(1, 2, 3, 5, generator=g).double(), torch.randn(2, generator=g).double()
    holes = hs.dense(torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 0, 1]]).bool())
    every = extra == "everything"

    def look(q, k, bias, sinks):
        kwargs = {}
        if extra in ("causal", "holes") or every:
            kwargs["mask"] = hs.causal() if extra == "causal" else holes
        if extra == "softcap" or every:
            kwargs["softcap"] = 2.0
        if extra == "bias" or every:
            kwargs["bias"] = hs.dense_bias(bias)
        if extra == "sinks" or every:
            kwargs["sinks"] = sinks
        return GRADIENTS[name](q, k, **kwargs)

    given = [x.requires_grad_() for x in (q, k, bias, sinks)]
    assert torch.autograd.gradcheck(look, given)


def test_a_loss_of_entropies_reaches_every_input_in_float32():
    q, k = (x.requires_grad_() for x in inputs(2))
    hs.look.entropy(q, k, mask=hs.causal()).mean().backward()
    got = q.grad, k.grad
    w, wk = (x.detach().double().requires_grad_() for x in (q, k))
    torch.special.entr(full(w, wk, mask=hs.causal())[0].clamp_min(1e-300)).sum(-1).mean().backward()
    same(got[0], w.grad, atol=1e-6)
    same(got[1], wk.grad, atol=1e-6)


def test_no_queries_and_no_keys():
    empty = torch.zeros(1, 2, 0, D)
    some = torch.zeros(1, 2, 3, D)
    assert hs.look.received(empty, some).tolist() == [[[0.0] * 3] * 2]
    assert hs.look.entropy(some, empty).tolist() == [[[0.0] * 3] * 2]
    assert hs.look.concentration(some, empty).tolist() == [[[0.0] * 3] * 2]


def test_what_cannot_be_looked_at():
    q, k = inputs()
    with pytest.raises(LookError, match=r"top: n=0; there are 53 keys"):
        hs.look.top(q, k, 0)
    with pytest.raises(LookError, match=r"top: n=54; there are 53 keys, so give 1 to 53"):
        hs.look.top(q, k, 54)
    with pytest.raises(LookError, match=r"offsets: n=-1; give the largest distance"):
        hs.look.offsets(q, k, -1)
    with pytest.raises(LookError, match=r"offsets: 1 query has no profile over offsets"):
        hs.look.offsets(q[:, :, :1], k, 3)
    with pytest.raises(LookError, match=r"heatmap: size=0; give the most cells on a side"):
        hs.look.heatmap(q, k, 0)
    with pytest.raises(LookError, match=r"heatmap: how='median'; give \"mean\" or \"max\""):
        hs.look.heatmap(q, k, 3, "median")
    with pytest.raises(LookError, match=r"project: W is \(52, 1\) and there are 53 keys"):
        hs.look.project(q, k, torch.zeros(K - 1, 1))


def test_queries_that_see_nothing_count_nothing():
    mask = hs.dense(torch.zeros(Q, K, dtype=torch.bool))
    q, k = inputs()
    for name in ("entropy", "concentration", "received"):
        assert not getattr(hs.look, name)(q, k, mask=mask).any(), name
    assert not hs.look.heatmap(q, k, 8, mask=mask).any()
    assert math.isinf(float(stream(Request(q, k, k, mask), Ask()).lse.max()))
    assert q.shape[1] == H


@pytest.mark.slow
def test_a_training_step_with_entropy_regularisation_takes_linear_memory():
    """The whole matrices of 2 heads x 8192 would be 512 MB in float32, several times in a backward pass."""
    from benchmarks.memory import peak

    q, k = torch.randn(2, 1, 2, 8192, 64).requires_grad_()

    def step():
        hs.look.entropy(q, k, mask=hs.causal()).mean().backward()

    step()
    assert peak(step) < 200 * 2**20


@pytest.mark.slow
def test_everything_at_once_takes_linear_memory():
    from benchmarks.memory import peak

    q, k = torch.randn(2, 1, 2, 8192, 64)
    ask = Ask(entropy=True, received=True, top=8, mean_map=True, max_map=True, cells=(32, 32))
    assert peak(lambda: stream(Request(q, k, k), ask)) < 64 * 10**6
