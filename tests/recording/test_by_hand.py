"""Attention that a model writes out by hand is recorded; other softmaxes are not."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import headscope as hs
from headscope.errors import NothingRecorded

WIDE, HEADS = 24, 3


class Block(nn.Module):
    """Projections and heads; how it attends is the subclass's own business."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(WIDE, 3 * WIDE), nn.Linear(WIDE, WIDE)
        self.n_head, self.dropout = HEADS, nn.Dropout(0.2)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = (y.view(b, n, HEADS, -1).transpose(1, 2) for y in self.inner(x).split(WIDE, dim=2))
        return self.outer(self.attention(q, k, v).transpose(1, 2).reshape(b, n, WIDE))


class Minimal(Block):
    """As minGPT and nanoGPT write it."""

    def attention(self, q, k, v):
        n = q.size(-2)
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(torch.ones(n, n).tril()[None, None] == 0, float("-inf"))
        self.weights = att = F.softmax(att, dim=-1)
        return self.dropout(att) @ v


class Annotated(Block):
    """As the annotated transformer writes it."""

    def attention(self, q, k, v):
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.size(-1))
        scores = scores.masked_fill(torch.arange(q.size(-2)) > 4, -1e9)
        self.weights = scores.softmax(dim=-1)
        return torch.matmul(self.dropout(self.weights), v)


class Bert(Block):
    """As the first BERT in torch wrote it, with an added mask and a module for the softmax."""

    def __init__(self):
        super().__init__()
        self.softmax = nn.Softmax(dim=-1)

    def attention(self, q, k, v):
        scores = torch.matmul(q, k.transpose(-1, -2))
        scores = scores / math.sqrt(q.size(-1))
        scores = scores + torch.zeros(1, 1, 1, q.size(-2)).index_fill(3, torch.tensor([1]), -10000.0)
        self.weights = self.softmax(scores)
        return torch.matmul(self.dropout(self.weights), v)


class Sums(Block):
    """With einsum, in float32 whatever comes, and dropout in place."""

    def attention(self, q, k, v):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        scores = torch.einsum("bqhd, bkhd -> bhqk", q, k).float() * 0.4
        att = torch.softmax(scores, -1).to(q.dtype)
        self.weights = att.detach().clone()
        return torch.einsum("bhqk,bkhd->bhqd", F.dropout(att, 0.2, self.training, inplace=True), v)


class Batched(Block):
    """With the heads in the batch, as `bmm` wants them."""

    def attention(self, q, k, v):
        q, k, v = (x.reshape(-1, *x.shape[2:]) for x in (q, k, v))
        weights = torch.bmm(q, k.mT).softmax(2)
        self.weights = weights.view(-1, HEADS, *weights.shape[1:])
        return torch.bmm(weights, v).view(-1, HEADS, *v.shape[1:])


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("kind", [Minimal, Annotated, Bert, Sums, Batched])
def test_its_call_is_recorded_with_the_weights_before_dropout(kind, train):
    torch.manual_seed(1)
    model, x = kind().train(train), torch.randn(2, 7, WIDE)
    torch.manual_seed(2)
    plain = model(x)
    torch.manual_seed(2)
    with hs.record(model) as recording:
        during = model(x)
    assert torch.equal(plain, during)
    (layer,) = recording.layers
    assert (layer.source, layer.kind, layer.q.shape) == ("call", "self", (2, HEADS, 7, 8))
    assert layer.bias is None
    for item in range(2):
        for head in range(HEADS):
            found = layer.head(head, item)
            torch.testing.assert_close(found.weights(), model.weights[item, head], atol=1e-6, rtol=0)
            values = model.inner(x)[item, :, 2 * WIDE + 8 * head : 2 * WIDE + 8 * head + 8]
            torch.testing.assert_close(found.values(), found.weights() @ values, atol=1e-5, rtol=0)


def test_other_softmaxes_are_not_attention():
    class Experts(nn.Module):
        """A router, a gate, a classifier, and a transposed mixture."""

        def __init__(self):
            super().__init__()
            self.router, self.experts, self.head = nn.Linear(8, 4), nn.Parameter(torch.randn(4, 8, 8)), nn.Linear(8, 5)

        def forward(self, x):
            share = self.router(x).softmax(-1)
            mixed = torch.einsum("bne,edm,bnd->bnm", share, self.experts, x)
            scores = torch.matmul(x[:, None], x[:, None].mT)
            return (
                self.head(mixed).softmax(-1),
                scores.softmax(-1),
                scores @ x[:, None],
                scores.softmax(-2) @ x[:, None],
            )

    with pytest.raises(NothingRecorded, match="no attention was recorded"), hs.record(model := Experts()):
        model(torch.randn(2, 3, 8))


def test_a_turned_product_is_not_attention_either():
    class Turned(nn.Module):
        def forward(self, x):
            x = x[:, None]
            weights = (x @ x.mT).softmax(-1)
            return weights.transpose(-1, -2) @ x, x.mT @ weights

    with pytest.raises(NothingRecorded, match="no attention was recorded"), hs.record(model := Turned()):
        model(torch.randn(2, 5, 5))


def test_nothing_is_left_behind():
    import gc
    import weakref

    model, x = Minimal().eval(), torch.randn(2, 7, WIDE)
    with torch.no_grad(), hs.record(model):
        model(x)
        kept = weakref.ref(model.weights)
        model.weights = None
        gc.collect()
        assert kept() is None
