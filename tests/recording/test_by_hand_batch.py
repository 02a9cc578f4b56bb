"""Attention by hand with one leading axis, in modules that do not say how many heads they have: the inputs tell."""

import pytest
import torch
from torch import nn

import headscope as hs
from headscope.errors import NothingRecorded

B, H, N, K, D = 3, 2, 7, 5, 11


def attention(q, k, v):
    return torch.bmm(torch.bmm(q, k.mT).softmax(-1), v)


def one_head(x):
    return attention(x, x.flip(1), x)


def folded(x):
    """`(b, n, h * d)`, whose heads become items."""
    q = x.view(len(x), N, 2, -1).transpose(1, 2).flatten(0, 1)
    return attention(q, q, q)


def folded_last(x):
    """`(n, b, h * d)`, as fairseq has it."""
    q = x.reshape(N, -1, D).transpose(0, 1)
    return attention(q, q, q)


def picture(x):
    """`(b, c, rows, columns)`: non-local blocks, and the middle of a VAE."""
    flat = x.flatten(2)
    return torch.bmm(torch.bmm(flat.mT, flat).softmax(-1), flat.mT)


def one_query(hidden, states):
    """A decoder of one step, as Luong et al. 2015 have it."""
    return attention(hidden[:, None], states, states)


def no_batch(x):
    """`(n, h * d)` without a batch."""
    q = x.view(N, H, -1).transpose(0, 1)
    return attention(q, q, q)


class Model(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, *inputs):
        return self.form(*inputs)


FORMS = {
    one_head: ([(B, N, D)], B, 1, N, N),
    folded: ([(B, N, H * D)], B, H, N, N),
    folded_last: ([(N, B, H * D)], B, H, N, N),
    picture: ([(B, D, 2, 4)], B, 1, 8, 8),
    one_query: ([(B, D), (B, K, D)], B, 1, 1, K),
    no_batch: ([(N, H * D)], 1, H, N, N),
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_items_and_heads_are_told_apart(form):
    torch.manual_seed(3)
    sizes, items, heads, queries, keys = FORMS[form]
    model, inputs = Model(form), [torch.randn(size) for size in sizes]
    expected = model(*inputs)
    with hs.record(model) as recording:
        assert torch.equal(model(*inputs), expected)
    (layer,) = recording.layers
    assert (layer.items, layer.heads, layer.q.shape[2], layer.k.shape[2]) == (items, heads, queries, keys)
    values = torch.cat([layer.head(head, item).values() for item in range(items) for head in range(heads)])
    torch.testing.assert_close(values, expected.reshape(values.shape))
    with hs.ablate(model, [(0, heads - 1)]):
        without = model(*inputs).view(items, heads, -1)
    assert not without[:, -1].any()
    assert torch.equal(without[:, :-1], expected.view(items, heads, -1)[:, :-1])


def test_where_nothing_tells_it_is_listed_with_the_reason():
    odd = Model(lambda x: one_head(x.view(B, N, D)))
    model = nn.Sequential(odd, nn.Flatten(0), Model(lambda x: one_head(x.view(1, -1, D))))
    x = torch.randn(B * N * D)
    reason = r"\(3, 7, 7\) by hand, and neither the module nor its inputs tell how many heads"
    with pytest.raises(NothingRecorded, match=reason), hs.record(model):
        model(x)
    model[2].num_heads = 1
    with hs.record(model) as recording:
        model(x)
    assert [layer.name for layer in recording.layers] == ["2"]
    assert [(one.name, one.reason.partition(",")[0]) for one in recording.missed] == [("0", "it computes weights (3")]
