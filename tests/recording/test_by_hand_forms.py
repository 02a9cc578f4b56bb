"""Every way to write attention by hand that we know of: recorded with its weights, and the model is left as it is."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import headscope as hs
from headscope.errors import NothingRecorded

B, H, N, D, E = 2, 3, 7, 5, 4


def causal(n=N):
    """A mask to fill with."""
    return torch.ones(n, n).triu(1).bool()


def bias_first(q, k, v):
    """As Bloom: batch and heads in one axis, a bias for each key added inside the product; values of three axes."""
    alibi = torch.linspace(0, 1, N).expand(B * H, 1, N) * torch.arange(1, H + 1).repeat(B)[:, None, None]
    alibi = alibi.to(q.dtype)
    q, k, v = (x.reshape(B * H, N, -1) for x in (q, k, v))
    scores = alibi.baddbmm(batch1=q, batch2=k.mT, beta=1.0, alpha=0.3).view(B, H, N, N)
    weights = (scores + causal().to(q.dtype) * torch.finfo(q.dtype).min).softmax(-1, dtype=torch.float64).to(q.dtype)
    return torch.bmm(weights.view(B * H, N, N), v).view(B, H, N, -1), weights


def bias_last(q, k, v):
    """As the first, the other way round: softmax over three axes, product over four."""
    scores = torch.bmm(q.reshape(B * H, N, -1), k.reshape(B * H, N, -1).mT) * 0.3
    weights = F.softmax(scores, dim=-1).view(B, H, N, N)
    return weights @ v, weights


def disentangled(q, k, v):
    """As DeBERTa: several products in one sum, a mask of booleans, weights of three axes."""
    places = torch.linspace(-1, 1, N * q.shape[-1]).view(1, N, -1).to(q.dtype)
    q3, k3, v3 = (x.reshape(B * H, N, -1) for x in (q, k, v))
    scores = torch.bmm(q3, k3.mT / math.sqrt(3 * D))
    scores = scores + torch.bmm(q3, places.expand(B * H, -1, -1).mT) + (k3 @ places.mT).mT
    scores = scores.view(-1, H, N, N).masked_fill(causal(), torch.finfo(q.dtype).min)
    weights = scores.softmax(-1)
    return torch.bmm(weights.view(-1, N, N), v3).view(B, H, N, -1), weights


def heads_last(q, k, v):
    """Heads in the last axis, and the softmax over the third."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    weights = torch.einsum("bihd, bjhd -> bijh", [q, k]).softmax(2)
    return torch.einsum("bijh,bjhd->bhid", weights, v), weights.permute(0, 3, 1, 2)


def keys_first(q, k, v):
    """Keys before queries, and the values before the weights."""
    weights = (k @ q.mT * 0.3).softmax(dim=-2)
    return (v.mT @ weights).mT, weights.mT


def from_the_right(q, k, v):
    """The transposed values times the transposed weights."""
    weights = torch.softmax(q @ k.mT / 2, -1)
    return (v.transpose(2, 3) @ weights.transpose(2, 3)).transpose(2, 3), weights


def in_place(q, k, v):
    """Every step in the place of the one before."""
    scores = q @ k.mT
    scores *= 0.3
    scores.masked_fill_(causal(), -torch.inf)
    scores += torch.linspace(0, 1, N).to(q.dtype)
    weights = scores.softmax(-1)
    kept = weights.clone()
    kept *= (torch.arange(N) != 2).to(q.dtype)  # not the weights: what is left of them
    return kept @ v, weights


def dots(q, k, v):
    """Ellipses and capitals."""
    weights = F.softmax(torch.einsum("...Qd,...Kd->...QK", q, k), -1)
    return torch.einsum("...QK,...Kd", weights, v), weights


def grouped(q, k, v):
    """Heads in groups that share their keys, in axes of their own."""
    q = q.reshape(B, 1, H, N, -1)
    k, v = k[:, :1], v[:, :1]
    weights = torch.einsum("bghqd,bgkd->bghqk", q, k).softmax(-1)
    return torch.einsum("bghqk,bgke->bghqe", weights, v).reshape(B, H, N, -1), weights.reshape(B, H, N, N)


def exponentials(q, k, v):
    """The softmax by hand, too."""
    scores = q @ k.mT / 3
    raised = torch.exp(scores - scores.amax(-1, keepdim=True))
    weights = raised / raised.sum(-1, keepdim=True)
    return weights @ v, weights


def log_sum(q, k, v):
    """As Reformer: minus the log of the sum."""
    scores = q @ k.mT
    weights = (scores - scores.logsumexp(-1, keepdim=True)).exp()
    return weights @ v, weights


def squashed(q, k, v):
    """Scores that go through a tanh, which is neither scale nor mask."""
    weights = (torch.tanh(q @ k.mT / 2) * 2).softmax(-1)
    return weights @ v, weights


def tempered(q, k, v):
    """A temperature that is learned, a tensor without axes."""
    weights = (q @ k.mT * torch.tensor(0.7, dtype=q.dtype)).softmax(-1)
    return weights @ v, weights


def tiles(q, k, v):
    """Five axes: blocks of queries, each with every key."""
    q = q[:, :, :6].reshape(B, H, 2, 3, -1)
    weights = torch.einsum("bhcqd,bhkd->bhcqk", q, k).softmax(-1)
    out = torch.einsum("bhcqk,bhkd->bhcqd", weights, v)
    return out.reshape(B, H, 6, -1), weights.transpose(1, 2).reshape(2 * B, H, 3, N)


class Masked(torch.autograd.Function):
    """As the first DeBERTa: a softmax that writes zeros where nothing may be seen."""

    @staticmethod
    def forward(ctx, scores, mask):
        hidden = ~mask.bool()
        output = torch.softmax(scores.masked_fill(hidden, torch.finfo(scores.dtype).min), -1)
        output.masked_fill_(hidden, 0)
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx, grad):
        (output,) = ctx.saved_tensors
        return output * (grad - (grad * output).sum(-1, keepdim=True)), None


def own_function(q, k, v):
    """A softmax with a backward of its own."""
    weights = Masked.apply(q @ k.mT, ~causal())
    return weights @ v, weights


FORMS = (
    bias_first, bias_last, disentangled, heads_last, keys_first, from_the_right, in_place, dots, grouped, exponentials,
    log_sum, squashed, tempered, tiles, own_function,
)  # fmt: skip
# Of these the weights are all that is known: a tanh stands between, or the exponentials were written out.
FROM_WEIGHTS = {exponentials, squashed}


class Model(nn.Module):
    """One attention, written in some form."""

    def __init__(self, form):
        super().__init__()
        self.form, self.num_heads, self.seen = form, H, None
        self.q, self.k, self.v = (nn.Linear(H * D, H * size) for size in (D, D, E))

    def forward(self, x):
        q, k, v = (
            layer(x).view(len(x), -1, H, size).transpose(1, 2)
            for layer, size in ((self.q, D), (self.k, D), (self.v, E))
        )
        output, seen = self.form(q, k, v)
        self.seen = seen.detach()
        return output


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_recorded(form):
    torch.manual_seed(3)
    model, x = Model(form).double(), torch.randn(B, N, H * D, dtype=torch.float64)
    plain = model(x)
    plain.sum().backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with warnings.catch_warnings(), hs.record(model) as recording:
        warnings.simplefilter("error")
        during = model(x)
        during.sum().backward()
    assert torch.equal(plain, during)
    assert all(torch.equal(a, p.grad) for a, p in zip(grads, model.parameters(), strict=True))
    (layer,) = recording.layers
    assert layer.source == ("weights" if form in FROM_WEIGHTS else "call")
    assert (layer.items, layer.heads) == model.seen.shape[:2]
    for item in range(layer.items):
        for head in range(H):
            found = layer.head(head, item)
            torch.testing.assert_close(found.weights().double(), model.seen[item, head], atol=1e-6, rtol=0)
            if form not in (tiles, in_place):
                torch.testing.assert_close(found.values().double(), plain[item, head].detach(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("form", "sizes"),
    [
        (bias_first, (1, H, 1, N)),
        (bias_last, None),
        (disentangled, (B, H, N, N)),
        (tempered, None),
        (in_place, (1, 1, 1, N)),
    ],
)
def test_what_is_added_is_kept_as_small_as_it_is(form, sizes):
    torch.manual_seed(3)
    model = Model(form)
    with hs.record(model) as recording:
        model(torch.randn(B, N, H * D))
    bias = recording.layers[0].bias
    assert (None if bias is None else tuple(bias.shape)) == sizes


@pytest.mark.parametrize("split", ["before", "after"])
def test_heads_in_a_loop_are_recorded_one_by_one(split):
    def form(q, k, v):
        if split == "after":
            weights = (q @ k.mT).softmax(-1)
            return torch.stack([weights[:, i] @ v[:, i] for i in range(H)], 1), weights
        each = [(q[:, i] @ k[:, i].mT).softmax(-1) for i in range(H)]
        return torch.stack([w @ v[:, i] for i, w in enumerate(each)], 1), torch.stack(each, 1)

    torch.manual_seed(3)
    model, x = Model(form), torch.randn(B, N, H * D)
    plain = model(x)
    with hs.record(model) as recording:
        assert torch.equal(model(x), plain)
    assert [(layer.items, layer.heads) for layer in recording.layers] == [(B, 1)] * H
    for head, layer in enumerate(recording.layers):
        for item in range(B):
            torch.testing.assert_close(layer.head(0, item).weights(), model.seen[item, head], atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_softmax_in_float32_and_cast(dtype):
    def form(q, k, v):
        weights = F.softmax((q @ k.mT).float() / math.sqrt(D), dim=-1, dtype=torch.float32)
        return weights.to(v.dtype) @ v, weights

    torch.manual_seed(3)
    model = Model(form).to(dtype)
    with hs.record(model) as recording:
        model(torch.randn(B, N, H * D, dtype=dtype))
    found = torch.stack([recording.layers[0].head(head, 1).weights() for head in range(H)])
    torch.testing.assert_close(found, model.seen[1], atol=2e-3, rtol=0)


def test_two_axes_without_a_batch():
    class Plain(nn.Module):
        def forward(self, x):
            return (x @ x.T / 2).softmax(-1) @ x

    x = torch.randn(N, D)
    with hs.record(model := Plain()) as recording:
        model(x)
    torch.testing.assert_close(recording[0, 0].weights(), (x @ x.T / 2).softmax(-1))


def test_a_learned_query_is_attention_and_learned_keys_are_not():
    class Pool(nn.Module):
        """A query that is learned looks at the input; or the input chooses among what is learned."""

        def __init__(self, *, choose):
            super().__init__()
            self.learned, self.choose, self.num_heads = nn.Parameter(torch.randn(3, D)), choose, 1

        def forward(self, x):
            if self.choose:
                return torch.matmul(x, self.learned.T).softmax(-1) @ self.learned
            return torch.matmul(self.learned, x.mT).softmax(-1) @ x

    x = torch.randn(B, N, D)
    with hs.record(model := Pool(choose=False)) as recording:
        model(x)
    assert recording.layers[0].q.shape[2:] == (3, D)
    with pytest.raises(NothingRecorded, match="no attention was recorded"), hs.record(model := Pool(choose=True)):
        model(x)


def slots(q, k, v):
    """As slot attention: queries compete for a key."""
    share = (q @ k.mT).softmax(-2)
    return (share / share.sum(-1, keepdim=True)) @ v, share


def turned(q, k, v):
    """Sums over the queries."""
    weights = (q @ k.mT).softmax(-1)
    return weights.mT @ v, weights


def rolled(q, k, v):
    """Weights times weights, as in rollout."""
    weights = (q @ k.mT).softmax(-1)
    return weights @ (k @ q.mT).softmax(-1), weights


def mixed(q, k, v):
    """Heads that are mixed after the softmax: no softmax any more."""
    weights = (q @ k.mT).softmax(-1)
    mix = torch.einsum("bhqk,hg->bgqk", weights, torch.ones(H, H).to(q.dtype))
    return mix @ v, weights


def gated(q, k, v):
    """Weights that are changed one by one after the softmax."""
    weights = (q @ k.mT).softmax(-1)
    return (weights * torch.sigmoid(k @ q.mT)) @ v, weights


def part(q, k, v):
    """A part of the keys only."""
    weights = (q @ k.mT).softmax(-1)
    return weights[..., :4] @ v[:, :, :4], weights


def classes(q, k, v):
    """A product, a layer, and only then a softmax."""
    values = F.linear(q @ k.mT, torch.eye(N).to(q.dtype)).softmax(-1)
    return values @ v, values


@pytest.mark.parametrize("form", [slots, turned, rolled, mixed, gated, part, classes])
def test_what_is_no_attention_is_not_recorded(form):
    torch.manual_seed(3)
    model, x = Model(form), torch.randn(B, N, H * D)
    plain = model(x)
    with pytest.raises(NothingRecorded, match="no attention was recorded"), hs.record(model):
        assert torch.equal(plain, model(x))


def test_what_cannot_be_followed_warns_and_leaves_the_model(monkeypatch):
    from headscope.calls.by_hand import follower

    def fails(*_):
        raise RuntimeError("unknown layout")

    monkeypatch.setattr(follower, "paired", fails)
    model, x = Model(bias_last), torch.randn(B, N, H * D)
    plain = model(x)
    with (
        pytest.raises(NothingRecorded, match="no attention was recorded"),
        pytest.warns(UserWarning, match="not followed through matmul"),
        hs.record(model),
    ):
        assert torch.equal(plain, model(x))
