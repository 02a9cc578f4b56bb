"""W_O of a recorded head, found in its model: the heads' values through it add up to what the model computed."""

import pytest
import torch
from torch import nn

import headscope as hs
from headscope.errors import LookError, ModelError
from headscope.recording.output_projection import output_projection
from tests.recording.tiny import KINDS, build


def outputs(model: nn.Module, run) -> list[torch.Tensor]:
    """Every tensor that any module puts out, in a forward pass."""
    seen: list[torch.Tensor] = []

    def keep(module, args, output):
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, torch.Tensor):
            seen.append(first.detach())

    handles = [module.register_forward_hook(keep) for module in model.modules()]
    run()
    for handle in handles:
        handle.remove()
    return seen


def bias_of(model: nn.Module, weight: torch.Tensor) -> torch.Tensor | float:
    """The bias that stands beside a weight."""
    for module in model.modules():
        own = getattr(module, "weight", None)
        if isinstance(own, torch.Tensor) and own.data_ptr() == weight.data_ptr():
            return 0.0 if getattr(module, "bias", None) is None else module.bias.detach()
    raise AssertionError("the weight is of no module")


def adds_up(model: nn.Module, run) -> None:
    with hs.record(model) as recording, torch.no_grad():
        seen = outputs(model, run)
    for layer in recording.layers:
        parts = [output_projection(model, layer, head) for head in range(layer.heads)]
        summed = sum(layer.head(head).values() @ part for head, part in enumerate(parts)) + bias_of(model, parts[0])
        near = [float((summed - x[0]).abs().max()) for x in seen if x.shape[1:] == summed.shape]
        assert min(near) < 1e-5, layer.name


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_hugging_face_model(kind):
    model, inputs = build(kind)
    adds_up(model, lambda: model(**inputs))


def test_of_torch_s_layer_and_of_ours():
    x = torch.randn(1, 5, 12)
    theirs = nn.TransformerEncoderLayer(12, 3, 16, batch_first=True, dropout=0.0)
    adds_up(theirs, lambda: theirs(x))
    ours = nn.Sequential(hs.nn.MultiheadAttention(12, 6, num_kv_heads=2, head_dim=4))
    adds_up(ours, lambda: ours(x))


def test_heads_that_were_selected_keep_their_rows():
    model, inputs = build("bert")
    with hs.record(model) as everything:
        model(**inputs)
    with hs.record(model, heads=[1]) as one:
        model(**inputs)
    expected = output_projection(model, everything.layers[0], 1)
    assert torch.equal(output_projection(model, one.layers[0], 1), expected)


def test_what_cannot_be_found():
    model, inputs = build("bert")
    with hs.record(model, values=False) as without:
        model(**inputs)
    with pytest.raises(LookError, match="was recorded without its values"):
        output_projection(model, without.layers[0], 0)
    with hs.record(model) as recording:
        model(**inputs)
    with pytest.raises(ModelError, match="has no module .*; give the model that was recorded"):
        output_projection(nn.Linear(2, 2), recording.layers[0], 0)
    for module in model.modules():
        if hasattr(module, "dense"):
            module.mixed, module.dense = module.dense, None
    with pytest.raises(ModelError, match="no linear map from"):
        output_projection(model, recording.layers[0], 0)
