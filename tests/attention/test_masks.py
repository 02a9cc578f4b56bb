"""What each mask means, against its definition written out; the algebra; converters."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask

import headscope as hs
from headscope.attention.masks.runs import Runs, from_dense
from headscope.errors import MaskError, ShapeError
from tests.attention.cases import masks

Q, K = 7, 11


def positions(q=Q, k=K):
    """The position of every query, aligned at the end, and of every key."""
    return torch.arange(k - q, k)[:, None], torch.arange(k)[None]


def test_causal_is_aligned_to_the_end():
    i, j = positions()
    assert (hs.causal().to_dense(Q, K)[0, 0] == (j <= i)).all()
    more_queries_than_keys = hs.causal().to_dense(K, Q)[0, 0]
    assert not more_queries_than_keys[: K - Q].any()


@pytest.mark.parametrize(("left", "right"), [(0, 0), (2, 0), (3, 2), (None, 1), (1, None), (None, None), (50, 50)])
def test_window_counts_beside_the_query_s_own_key(left, right):
    i, j = positions()
    expected = torch.ones(Q, K, dtype=torch.bool)
    if left is not None:
        expected &= j >= i - left
    if right is not None:
        expected &= j <= i + right
    assert (hs.window(left, right).to_dense(Q, K)[0, 0] == expected).all()


def test_padding_first_prefix():
    i, j = positions()
    padded = hs.padding([0, 4, K], [Q, 2, 0]).to_dense(Q, K)[:, 0]
    assert not padded[0].any()
    assert not padded[2].any()
    assert (padded[1] == ((j < 4) & (torch.arange(Q)[:, None] < 2))).all()
    assert (hs.first([3, 99]).to_dense(Q, K)[:, 0] == torch.stack([j < 3, j < 99]).expand(2, Q, K)).all()
    assert (hs.prefix(8).to_dense(Q, K)[0, 0] == ((j <= i) | (j < 8))).all()


def test_documents():
    queries, keys = [3, 0, 4], [5, 2, 4]
    which_q = torch.repeat_interleave(torch.arange(3), torch.tensor(queries))[:, None]
    which_k = torch.repeat_interleave(torch.arange(3), torch.tensor(keys))[None]
    assert (hs.documents(queries, keys).to_dense(Q, K)[0, 0] == (which_q == which_k)).all()


KINDS = list(masks(Q, K, 2, 3))[1:]


@given(st.sampled_from(KINDS), st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_and_and_or_are_those_of_the_dense_masks(a, b, c):
    known = masks(Q, K, 2, 3)
    x, y, z = (known[name] for name in (a, b, c))
    dense = [m.to_dense(Q, K) for m in (x, y, z)]
    for mask, expected in (
        (x & y, dense[0] & dense[1]),
        (x | y, dense[0] | dense[1]),
        (x & y | z, dense[0] & dense[1] | dense[2]),
        ((x | y) & z, (dense[0] | dense[1]) & dense[2]),
    ):
        by_runs = mask.runs(Q, K).block(slice(0, Q), 0, K).expand(-1, -1, Q, -1)
        assert (by_runs == expected).all()
        assert (mask.to_dense(Q, K) == expected).all()


@given(st.integers(0, 2**20))
def test_runs_are_ascending_disjoint_and_find_a_dense_mask_again(seed):
    made = torch.Generator().manual_seed(seed)
    allowed = torch.rand(2, 3, Q, K, generator=made) > 0.5
    runs = from_dense(allowed)
    start, stop = runs
    assert (runs.block(slice(0, Q), 0, K) == allowed).all()
    assert (runs.counts() == allowed.sum(-1)).all()
    used = stop > start
    both = used[..., 1:] & used[..., :-1]
    assert (start[..., 1:] > stop[..., :-1])[both].all()
    assert (used[..., 1:] <= used[..., :-1]).all()  # empty ones last
    assert (start[~used] == 0).all()


def test_a_dense_mask_that_is_really_runs_needs_one_column():
    assert hs.dense(hs.window(2).to_dense(Q, K)).runs(Q, K).start.shape == (1, 1, Q, 1)


def test_runs_are_made_once_for_a_size():
    mask = hs.causal() & hs.padding([5])
    assert mask.runs(Q, K).start is mask.runs(Q, K).start
    assert mask.runs(Q, K + 1).start is not mask.runs(Q, K).start


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_a_mask_does_not_change_with_the_tensor_it_was_made_of(dtype):
    lengths, allowed = torch.tensor([7, 5], dtype=dtype), torch.ones(Q, Q, dtype=torch.bool)
    made = [hs.padding(lengths), hs.padding(lengths, lengths), hs.documents(lengths), hs.dense(allowed)]
    sizes = [(Q, Q), (Q, Q), (12, 12), (Q, Q)]
    before = [mask.to_dense(*size).clone() for mask, size in zip(made, sizes, strict=True)]
    lengths[:] = torch.tensor([3, 9])
    allowed[:, 2:] = False
    for mask, size, dense in zip(made, sizes, before, strict=True):
        assert torch.equal(mask.to_dense(*size), dense)
        mask._cache = None
        assert torch.equal(mask.runs(*size).block(slice(0, size[0]), 0, size[1]).expand_as(dense), dense)


def test_merged_neighbours_become_one_run():
    both = hs.window(2, 0) | hs.window(0, 2)
    assert both.runs(9, 9).start.shape[-1] == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("q", "k"), [(Q, K), (131, 257)])
def test_block_masks_there_and_back(kind, q, k):
    mask = masks(q, k, 2, 3)[kind]
    blocks = mask.to_block_mask(q, k)
    expected = mask.to_dense(q, k)
    assert (hs.from_block_mask(blocks).to_dense(q, k) == expected).all()
    seen = blocks.to_dense()[..., : -(-q // 128), : -(-k // 128)].bool()
    padded = (
        torch.nn.functional.pad(expected, (0, -k % 128, 0, -q % 128)).unflatten(-1, (-1, 128)).unflatten(-3, (-1, 128))
    )
    assert (seen == padded.any(-1).any(-2)).all()


def test_torch_s_own_block_mask():
    blocks = create_block_mask(lambda b, h, q, k: (q >= k) & (q - k < 40), None, None, 131, 131, device="cpu")
    assert (hs.from_block_mask(blocks).to_dense(131, 131) == hs.window(39).to_dense(131, 131)).all()


def test_additive_masks():
    mask = hs.window(2)
    additive = mask.to_additive(Q, K, torch.float32)
    found, bias = hs.from_additive(additive)
    assert bias is None
    assert (found.to_dense(Q, K) == mask.to_dense(Q, K)).all()
    lowest = additive.clamp(min=torch.finfo(torch.float32).min)
    assert (hs.from_additive(lowest)[0].to_dense(Q, K) == mask.to_dense(Q, K)).all()
    additive[..., 0, 4] += 1.5
    found, bias = hs.from_additive(additive)
    assert bias is not None
    assert (bias.block(slice(0, Q), 0, K, Q, K)[0, 0, 0, 4]) == 1.5


def test_torch_s_inverted_masks():
    attn = torch.rand(Q, K) > 0.7
    pads = torch.arange(K) >= torch.tensor([[4], [9]])
    mask = hs.from_torch_mha_mask(attn, pads)
    expected = ~attn[None, None] & ~pads[:, None, None]
    assert (mask.to_dense(Q, K) == expected).all()
    per_head = torch.rand(6, Q, K) > 0.7
    assert (hs.from_torch_mha_mask(per_head, num_heads=3).to_dense(Q, K) == ~per_head.view(2, 3, Q, K)).all()
    numbers = torch.zeros(Q, K).masked_fill(attn, float("-inf"))
    assert (hs.from_torch_mha_mask(numbers).to_dense(Q, K)[0, 0] == ~attn).all()
    with pytest.raises(MaskError, match="neither attn_mask nor key_padding_mask"):
        hs.from_torch_mha_mask()
    with pytest.raises(MaskError, match="other numbers than 0 and minus infinity"):
        hs.from_torch_mha_mask(numbers + 1.0)
    with pytest.raises(MaskError, match="its first axis is batch x num_heads"):
        hs.from_torch_mha_mask(per_head, num_heads=4)
    with pytest.raises(MaskError, match=r"give \(queries, keys\) or"):
        hs.from_torch_mha_mask(attn[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hs.window(-1), "left=-1; count the keys"),
        (lambda: hs.window(1, -2), "right=-2; count the keys"),
        (lambda: hs.padding([-1, 2]), "key_lengths holds -1; lengths are 0 or more"),
        (lambda: hs.padding(torch.tensor([1.5])), "give one integer for every"),
        (lambda: hs.padding([1, 2], [1]), "2 key_lengths and 1 query_lengths; give one of each for every sequence"),
        (lambda: hs.documents([1, 2], [3]), r"key_lengths \(1, 1\); give both for every document"),
        (lambda: hs.dense(torch.ones(2, 2, 2, dtype=torch.bool)), r"give \(queries, keys\) or \(batch"),
        (lambda: hs.causal().runs(-1, 2), "-1 queries and 2 keys; give sizes of at least 0"),
        (lambda: hs.causal().runs(2, -1), "2 queries and -1 keys; give sizes of at least 0"),
        (lambda: hs.padding([9]).runs(3, 5), "key_lengths holds 9 and there are 5 keys"),
        (lambda: hs.padding([5], [9]).runs(3, 5), "query_lengths holds 9 and there are 3 queries"),
        (lambda: hs.documents([2, 2]).runs(5, 4), "lengths add up to .4. and there are 5 queries"),
        (lambda: hs.documents([5], [3]).runs(5, 4), "key_lengths add up to .3. and there are 4 keys"),
        (lambda: hs.dense(torch.ones(2, 3, dtype=torch.bool)).runs(4, 3), r"its last two axes must be \(4 or 1, 3\)"),
        (lambda: (hs.padding([1, 2]) & hs.padding([1, 2, 3])).runs(4, 4), "the two masks are for 2 and 3 batch items"),
    ],
)
def test_masks_that_mean_nothing(make, message):
    with pytest.raises(MaskError, match=message):
        make()


def test_a_mask_for_other_sizes_is_refused_by_attend():
    x = torch.randn(2, 3, 5, 4)
    with pytest.raises(MaskError, match="is for 4 batch items and q has 2"):
        hs.attend(x, x, x, mask=hs.padding([1, 2, 3, 4]))
    with pytest.raises(MaskError, match="is for 2 heads and q has 3"):
        hs.attend(x, x, x, mask=hs.dense(torch.ones(1, 2, 5, 5, dtype=torch.bool)), backend="formula")


def test_known_runs_are_for_their_own_sizes():
    from headscope.attention.masks.mask import Intervals

    runs = hs.window(1).runs(Q, K)
    known = Intervals(runs, K)
    assert (known.to_dense(Q, K) == hs.window(1).to_dense(Q, K)).all()
    with pytest.raises(MaskError, match="only for their own sizes"):
        known.runs(Q, K + 1)
    assert isinstance(runs, Runs)


def test_merge_of_pieces_is_the_whole():
    q, k, v = (torch.randn(2, 3, n, 5, dtype=torch.float64, requires_grad=True) for n in (Q, K, K))
    whole = hs.attend_lse(q, k, v, mask=hs.causal())
    cuts = [slice(0, 4), slice(4, 5), slice(5, K)]
    dense = hs.causal().to_dense(Q, K)
    pairs = [hs.attend_lse(q, k[:, :, c], v[:, :, c], mask=hs.dense(dense[..., c].contiguous())) for c in cuts]
    merged = hs.merge(pairs)
    for mine, theirs in zip(merged, whole, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    loss = [(values.sin().sum() + lse.cos().sum()) for values, lse in (merged, whole)]
    for mine, theirs in zip(*(torch.autograd.grad(x, (q, k, v)) for x in loss), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


def test_merge_keeps_rows_that_see_nothing_and_its_gradients_finite():
    values = torch.zeros(1, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    lse = torch.tensor([[[float("-inf"), 0.5]]], dtype=torch.float64, requires_grad=True)
    merged, total = hs.merge([(values, lse), (values, lse)])
    assert (merged == 0).all()
    assert total[0, 0, 0].isneginf()
    merged.sum().backward()
    assert values.grad.isfinite().all()
    assert lse.grad.isfinite().all()


def test_merge_of_what_does_not_fit():
    a = torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2)
    with pytest.raises(ShapeError, match="no pairs were given"):
        hs.merge([])
    with pytest.raises(ShapeError, match=r"a pair has values \(1, 1, 2, 4\)"):
        hs.merge([a, (torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2))])


def test_permuting_the_keys_changes_nothing():
    q, k, v = (torch.randn(2, 3, n, 5, dtype=torch.float64) for n in (Q, K, K))
    allowed = torch.rand(2, 1, Q, K) > 0.4
    order = torch.randperm(K)
    whole = hs.attend(q, k, v, mask=hs.dense(allowed))
    moved = hs.attend(q, k[:, :, order], v[:, :, order], mask=hs.dense(allowed[..., order]))
    torch.testing.assert_close(whole, moved)


def test_segment_by_segment_and_key_by_key_equals_the_whole():
    n = 13
    q, k, v = (torch.randn(1, 3, n, 5, dtype=torch.float64) for _ in range(3))
    packed = hs.attend(q, k, v, mask=hs.causal() & hs.documents([4, 9]))
    alone = [hs.attend(q[:, :, s], k[:, :, s], v[:, :, s], mask=hs.causal()) for s in (slice(0, 4), slice(4, n))]
    torch.testing.assert_close(packed, torch.cat(alone, 2))
    steps = [hs.attend(q[:, :, i : i + 1], k[:, :, : i + 1], v[:, :, : i + 1], mask=hs.window(3)) for i in range(n)]
    torch.testing.assert_close(torch.cat(steps, 2), hs.attend(q, k, v, mask=hs.window(3)))
