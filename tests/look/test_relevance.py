"""Gradient times attention and relevance equal those of full matrices that autograd was asked about."""

import pytest
import torch

import headscope as hs
from headscope.attention.request import Request
from headscope.errors import LookError
from headscope.look import relevance as relevances
from headscope.look.relevance import relevance
from tests.look.oracle import full

H, G, N, D, E = 4, 2, 11, 5, 3


class ByHand:
    """Three layers of attention, written out, whose matrices stay in the graph."""

    def __init__(self, mask=None, softcap=None):
        g = torch.Generator().manual_seed(0)
        self.mask, self.softcap = mask, softcap
        self.layers = [[torch.randn(7, heads * size, generator=g).double() for heads, size in ((H, D), (G, D), (G, E))]
                       for _ in range(3)]  # fmt: skip
        self.out = [torch.randn(H * E, 7, generator=g).double() for _ in range(3)]
        self.x = torch.randn(1, N, 7, generator=g).double().requires_grad_()
        self.matrices, self.outputs, self.requests = [], [], []

    def run(self):
        """A number that depends on the last position."""
        x = self.x
        for (wq, wk, wv), out in zip(self.layers, self.out, strict=True):
            q, k, v = ((x @ w).view(1, N, -1, s).transpose(1, 2) for w, s in ((wq, D), (wk, D), (wv, E)))
            P = full(q, k, mask=self.mask, softcap=self.softcap)[0]
            values = P @ v.repeat_interleave(H // G, 1)
            self.matrices.append(P)
            self.outputs.append(values)
            self.requests.append(Request(q, k, v, self.mask, None, None, self.softcap))
            x = x + values.transpose(1, 2).flatten(2) @ out
        return x[0, -1].square().sum()


@pytest.mark.parametrize("block", [relevances.BLOCK, 3 * H * N])
@pytest.mark.parametrize("options", [{}, {"mask": hs.causal()}, {"mask": hs.padding([8]), "softcap": 2.0}])
def test_relevance_is_the_product_of_matrices(options, block, monkeypatch):
    monkeypatch.setattr(relevances, "BLOCK", block)
    model = ByHand(**options)
    y = model.run()
    of_matrices = torch.autograd.grad(y, model.matrices, retain_graph=True)
    expected = torch.eye(N).double()
    for P, gradient in zip(model.matrices, of_matrices, strict=True):
        expected = expected + (P * gradient).clamp(min=0)[0].mean(0) @ expected
    of_outputs = torch.autograd.grad(y, model.outputs, retain_graph=True)
    torch.testing.assert_close(relevance(model.requests, of_outputs), expected.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(relevance(model.requests, of_outputs, -1), expected[-1:].detach())


def test_gradient_times_weights_is_that_of_the_matrix():
    model = ByHand(hs.causal())
    y = model.run()
    gradient, of_matrix = torch.autograd.grad(y, [model.outputs[1], model.matrices[1]], retain_graph=True)
    one = model.requests[1]
    found = hs.look.gradient_times_weights(one.q, one.k, one.v, gradient, [3, 10], slice(0, 9), mask=hs.causal())
    expected = (model.matrices[1] * of_matrix)[:, :, [3, 10], :9].detach()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_weights_are_differentiable():
    g = torch.Generator().manual_seed(1)
    q, k = torch.randn(1, 2, 3, 4, generator=g).double(), torch.randn(1, 1, 5, 4, generator=g).double()
    given = [x.requires_grad_() for x in (q, k)]
    assert torch.autograd.gradcheck(
        lambda q, k: hs.look.weights(q, k, [0, 2], slice(1, 4), mask=hs.causal(), softcap=2.0), given
    )
    torch.testing.assert_close(hs.look.weights(q, k), full(q, k)[0])


def test_heads_of_tensors_in_a_graph_are_looked_at_without_it():
    q = torch.randn(5, D).requires_grad_()
    head = hs.Head(q, q, q)
    for found in (head.weights(), head.scores(), head.values(), head.entropy(), head.received(), head.lse):
        assert not found.requires_grad
    assert head.q is q


def test_what_does_not_fit():
    q = torch.zeros(1, H, N, D)
    one = Request(q, q, q)
    with pytest.raises(LookError, match="relevance: 1 layers and 0 gradients; give one or more layers"):
        relevance([one], [])
    with pytest.raises(LookError, match=r"relevance: a gradient is \(1, 4, 11, 2\) and attention returned"):
        relevance([one], [torch.zeros(1, H, N, 2)])
    two = Request(q[:, :, :3], q, q)
    with pytest.raises(LookError, match="relevance: layer 1 has 1 items, 3 queries and 11 keys"):
        relevance([one, two], [q, q[:, :, :3]])
