"""What is selected is the cut of the whole recording."""

import pytest
import torch
from torch import nn

import headscope as hs
from headscope.errors import OverBudget


class Layers(nn.Module):
    """Four layers of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.MultiheadAttention(6, 3, batch_first=True) for _ in range(4))

    def forward(self, x):
        for part in self.parts:
            x = x + part(x, x, x, need_weights=False)[0]
        return x


@pytest.fixture
def model():
    torch.manual_seed(5)
    return Layers()


X = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("layers", "numbers"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, 2), [0, 2]),
        (slice(2, None), [2, 3]),
        (slice(0, 1), [0]),
        ([1, 3], [1, 3]),
        (2, [2]),
        ("parts.1", [1]),
        (["parts.0", 3], [0, 3]),
    ],
)
def test_layers_by_slice_number_and_path_are_those_of_the_whole(model, layers, numbers):
    with hs.record(model) as whole:
        model(X)
    with hs.record(model, layers=layers) as some:
        model(X)
    assert [layer.number for layer in some.layers] == numbers
    for mine, number in zip(some.layers, numbers, strict=True):
        for head in range(3):
            for item in range(2):
                want = whole.layers[number].head(head, item).weights()
                assert torch.equal(mine.head(head, item).weights(), want)


def test_a_budget_is_for_what_is_in_memory_and_a_folder_holds_one_layer_at_a_time(model, tmp_path):
    one = 3 * X.numel() * X.element_size()
    with hs.record(model, to=tmp_path / "all.headscope", budget=3 * one // 2) as recording:
        model(X)
    assert len(recording.layers) == 4
    with pytest.raises(OverBudget, match="budget"), hs.record(model, budget=3 * one // 2):
        model(X)
