import pytest
import torch
from torch import nn

from headscope.errors import ModelError
from headscope.nn import MultiheadAttention


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"add_bias_kv": True}, "add_bias_kv=True"),
        ({"add_zero_attn": True}, "add_zero_attn=True"),
        ({"kdim": 5, "vdim": 7}, "kdim=5 and vdim=7"),
    ],
)
def test_what_cannot_be_expressed_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=f"from_torch: this nn.MultiheadAttention has {message}"):
        MultiheadAttention.from_torch(nn.MultiheadAttention(12, 3, **options))


def test_training_mode_dropout_and_dtype_come_along() -> None:
    ours = MultiheadAttention.from_torch(nn.MultiheadAttention(12, 3, dropout=0.25, dtype=torch.bfloat16).eval())
    assert not ours.training
    assert ours.dropout == 0.25
    assert ours.output.weight.dtype == torch.bfloat16


def test_a_state_dict_that_does_not_fit_changes_nothing() -> None:
    layer = MultiheadAttention(12, 3)
    before = {name: p.clone() for name, p in layer.state_dict().items()}
    state = nn.MultiheadAttention(12, 3).state_dict()
    wrong = state | {"in_proj_bias": torch.zeros(9)}
    with pytest.raises(ModelError, match=r"of another size: project.qkv.bias \(9,\) instead of \(36,\)"):
        layer.load_torch_state_dict(wrong)
    with pytest.raises(ModelError, match=r"missing: .*; unknown: extra. Make the layer with the sizes that were saved"):
        layer.load_torch_state_dict(
            {k: v for k, v in state.items() if k != "out_proj.bias"} | {"extra": torch.zeros(1)}
        )
    assert all(torch.equal(p, before[name]) for name, p in layer.state_dict().items())
