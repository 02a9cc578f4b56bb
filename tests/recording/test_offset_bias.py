"""A bias by distance is one number for each offset, from the call to the page; also where a model writes it out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import headscope as hs
from headscope.calls.lines import by_rows, line_of
from headscope.errors import OverBudget
from headscope.view.precision import bias_of, packed

B, H, N, D = 2, 3, 37, 7


class Attends(nn.Module):
    """Self-attention with a function of q, k and v."""

    def __init__(self, attend) -> None:
        super().__init__()
        self.attend = attend

    def forward(self, *qkv):
        return self.attend(*qkv)


def qkv(queries: int = N, keys: int = N, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, H, n, D, generator=generator) for n in (queries, keys, keys)]


def table() -> torch.Tensor:
    return torch.randn(32, H, generator=torch.Generator().manual_seed(4))


BIASES = {"alibi": lambda: hs.alibi(H), "relative": lambda: hs.relative(table(), bidirectional=False)}


def dense(bias, queries: int = N, keys: int = N) -> torch.Tensor:
    return bias.block(slice(0, queries), 0, keys, queries, keys)


def with_mask(bias, mask):
    """The bias as a model writes it out, its mask within."""

    def attend(q, k, v):
        added = dense(bias, q.shape[2], k.shape[2])
        if mask is not None:
            added = added.expand(B, -1, -1, -1).masked_fill(~mask.to_dense(q.shape[2], k.shape[2]), -torch.inf)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=added)

    return Attends(attend)


MASKS = {
    "none": None,
    "causal": hs.causal(),
    "padded": hs.padding([N - 4, N]),
    "causal and padded": hs.causal() & hs.padding([N - 4, N]),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", BIASES)
@torch.no_grad()
def test_it_is_one_number_for_each_offset(name, mask, tmp_path):
    bias, who, tensors = BIASES[name](), MASKS[mask], qkv()
    allowed = torch.ones(B, 1, N, N, dtype=torch.bool) if who is None else who.to_dense(N, N)
    q, k, _ = tensors
    scores = (q.double() @ k.double().mT / D**0.5 + dense(bias).double()).masked_fill(~allowed, -torch.inf)
    want = scores.softmax(-1).float()
    for model in (Attends(lambda q, k, v: hs.attend(q, k, v, mask=who, bias=bias)), with_mask(bias, who)):
        with hs.record(model) as recording:
            model(*tensors)
        for found in (recording, hs.load(recording.save(tmp_path / "one", overwrite=True))):
            layer = found.layers[0]
            assert layer.bias is None
            assert layer.by_offset.shape == (H, 2 * N - 1)
            for item in range(B):
                for head in range(H):
                    torch.testing.assert_close(found[0, head, item].weights(), want[item, head], atol=1e-5, rtol=0)
            assert bias_of(layer).shape == (1, H, 2 * N - 1)
            assert packed(layer).error < 2e-3


@torch.no_grad()
def test_selected_queries_and_heads():
    model, tensors = Attends(lambda q, k, v: hs.attend(q, k, v, mask=hs.causal(), bias=hs.alibi(H))), qkv()
    with hs.record(model) as full:
        model(*tensors)
    with hs.record(model, queries=[5, -1], heads=[2, 0]) as part:
        model(*tensors)
    assert part.layers[0].bias.shape == (1, 2, 2, N)
    for head in (2, 0):
        torch.testing.assert_close(part[0, head, 1].weights(), full[0, head, 1].weights([5, N - 1]))


@torch.no_grad()
def test_steps_of_a_generation_share_one_line():
    bias, tensors = hs.alibi(H), qkv()
    model = Attends(lambda q, k, v: hs.attend(q, k, v, mask=hs.causal(), bias=bias))
    with hs.record(model) as whole:
        model(*tensors)
    q, k, v = tensors
    with hs.record(model) as recording:
        for first, last in ((0, 20), (20, 21), (21, N)):
            model(q[:, :, first:last], k[:, :, :last], v[:, :, :last])
    layer = recording.layers[0]
    assert len(recording.layers) == 1
    assert layer.bias is None
    assert layer.by_offset.shape == (H, 2 * N - 1)
    for head in range(H):
        torch.testing.assert_close(recording[0, head, 1].weights(), whole[0, head, 1].weights())


@torch.no_grad()
def test_steps_that_do_not_agree_are_written_out():
    model = Attends(
        lambda q, k, v: hs.attend(q, k, v, mask=hs.causal(), bias=hs.alibi(torch.full((H,), 1.0 / q.shape[2])))
    )
    (q, k, v), weights = qkv(), []
    with hs.record(model) as recording:
        for first, last in ((0, 20), (20, N)):
            model(q[:, :, first:last], k[:, :, :last], v[:, :, :last])
            one = hs.alibi(torch.full((H,), 1.0 / (last - first)))
            part = hs.Head(
                q[1, 0, first:last],
                k[1, 0, :last],
                mask=hs.causal(),
                bias=hs.dense_bias(dense(one, last - first, last)[:, :1]),
            )
            weights.append(F.pad(part.weights(), (0, N - last)))
    assert recording.layers[0].by_offset is None
    torch.testing.assert_close(recording[0, 0, 1].weights(), torch.cat(weights))


def test_the_budget_counts_offsets_and_not_pairs():
    model, n = Attends(lambda q, k, v: hs.attend(q, k, v, bias=hs.alibi(H))), 256
    tensors = [torch.randn(1, H, n, D) for _ in range(3)]
    cost = 4 * (3 * H * n * D + H * (2 * n - 1))
    with torch.no_grad(), hs.record(model, budget=cost) as recording:
        model(*tensors)
    assert recording.layers[0].by_offset.numel() == H * (2 * n - 1)
    with torch.no_grad(), pytest.raises(OverBudget), hs.record(model, budget=cost - 1):
        model(*tensors)


def test_another_bias_stays_as_it_is():
    bias = torch.randn(1, H, 5, 7)
    assert line_of(by_rows(bias), None) is None
    model = Attends(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=torch.randn(N, N)))
    with torch.no_grad(), hs.record(model) as recording:
        model(*qkv())
    assert recording.layers[0].bias.shape == (1, 1, N, N)


@pytest.mark.parametrize("sizes", [(7, 7), (1, 3, 7, 7), (2, 3, 1, 7)])
def test_a_bias_that_is_written_to_later_stays_as_it_was(sizes):
    """Also in between two layers, which share it."""

    class Model(nn.Module):
        def forward(self, x, bias):
            shared = hs.dense_bias(bias)
            x = hs.attend(x, x, x, bias=shared)
            bias.mul_(-2)
            x = hs.attend(x, x, x, bias=shared)
            return hs.attend(x, x, x, bias=shared)

    x, bias = torch.randn(2, 3, 7, 5), torch.randn(sizes)
    model, before = Model(), bias.clone()
    with hs.record(model) as recording:
        model(x, bias)
    bias.zero_()
    first, second, third = recording.layers
    assert torch.equal(first.bias.expand(2, 3, 7, 7), before.expand(2, 3, 7, 7))
    assert torch.equal(second.bias.expand(2, 3, 7, 7), -2 * before.expand(2, 3, 7, 7))
    assert second.bias.data_ptr() == third.bias.data_ptr()
