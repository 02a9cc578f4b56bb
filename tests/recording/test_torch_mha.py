"""A direct call of `F.multi_head_attention_forward`: masks that hide, keys appended at the end."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import headscope as hs

B, Q, K, H, M = 2, 5, 7, 3, 6


class Direct(nn.Module):
    """The function itself, as a model of somebody's own calls it."""

    def __init__(self, appended: bool) -> None:
        super().__init__()
        self.inside, self.outside = nn.Parameter(torch.randn(3 * M, M)), nn.Parameter(torch.randn(M, M))
        self.more = [nn.Parameter(torch.randn(1, 1, M)) if appended else None for _ in range(2)]

    def forward(self, q, k, zero, **masks):
        return F.multi_head_attention_forward(
            q, k, k, M, H, self.inside, torch.zeros(3 * M), *self.more, zero, 0.0, self.outside, None,
            training=False, need_weights=True, average_attn_weights=False, **masks,
        )  # fmt: skip


def masks(kind: str) -> dict[str, torch.Tensor]:
    """Masks in torch's meaning: True may not attend."""
    hidden = torch.rand(Q, K, generator=torch.Generator().manual_seed(3)) > 0.6
    hidden[:, 0] = False
    padded = torch.tensor([[False] * K, [False] * 4 + [True] * 3])
    if kind == "bool":
        return {"attn_mask": hidden, "key_padding_mask": padded}
    added = torch.zeros(Q, K).masked_fill(hidden, -torch.inf) + torch.randn(Q, K)
    return {"attn_mask": added} if kind == "float" else {}


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
@pytest.mark.parametrize("appended", [False, True])
@pytest.mark.parametrize("zero", [False, True])
def test_recorded_weights_are_those_that_it_returns(kind, appended, zero):
    torch.manual_seed(7)
    model, q, k = Direct(appended), torch.randn(Q, B, M), torch.randn(K, B, M)
    with torch.no_grad(), hs.record(model) as recording:
        want = model(q, k, zero, **masks(kind))[1]
    (layer,) = recording.layers
    assert want.shape == (B, H, Q, K + appended + zero)
    found = torch.stack([torch.stack([layer.head(h, b).weights() for h in range(H)]) for b in range(B)])
    torch.testing.assert_close(found, want)
