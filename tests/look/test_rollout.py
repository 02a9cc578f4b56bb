"""Attention rollout equals the product of the full matrices."""

import pytest
import torch

import headscope as hs
from headscope.attention.request import Request
from headscope.errors import LookError
from headscope.look.rollout import rollout
from tests.look.oracle import D, full


def layers(mask=None):
    g = torch.Generator().manual_seed(0)
    found = []
    for _ in range(3):
        q, k = torch.randn(1, 6, 13, D, generator=g), torch.randn(1, 3, 13, D, generator=g)
        found.append(Request(q, k, k, mask))
    return found


@pytest.mark.parametrize("mask", [None, hs.causal(), hs.window(3)])
@pytest.mark.parametrize("chosen", [None, 5, [12, 0, 12], slice(2, 4)])
def test_rollout_is_the_product_of_matrices(mask, chosen):
    product = torch.eye(13, dtype=torch.float64)
    for one in layers(mask):
        product = (torch.eye(13) + full(one.q, one.k, mask=mask)[0][0].mean(0)) / 2 @ product
    expected = product if chosen is None else product[[chosen] if isinstance(chosen, int) else chosen]
    torch.testing.assert_close(rollout(layers(mask), chosen).double(), expected, rtol=1e-5, atol=1e-6)


def test_rollout_of_a_recording():
    torch.manual_seed(0)
    model = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), 2).eval()
    with hs.record(model) as recording:
        model(torch.randn(2, 5, 8))
    found = recording.rollout(item=1)
    first, second = (torch.stack([recording[layer, h, 1].weights() for h in range(2)]).mean(0) for layer in (0, 1))
    expected = ((torch.eye(5) + second) / 2) @ ((torch.eye(5) + first) / 2)
    torch.testing.assert_close(found, expected)


def test_what_cannot_be_rolled_out():
    with pytest.raises(LookError, match="rollout: there are no layers"):
        rollout([])
    k = torch.zeros(1, 1, 7, D)
    other = Request(torch.zeros(1, 1, 13, D), k, k)
    with pytest.raises(LookError, match=r"rollout: layer 1 has 1 items, 13 queries and 7 keys"):
        rollout([layers()[0], other])
    with pytest.raises(LookError, match=r"position 13 does not exist"):
        rollout(layers(), 13)
