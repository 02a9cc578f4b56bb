"""`hs.nn.replace` on models that other packages bring."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import headscope as hs
from headscope.nn import TorchMultiheadAttention, replace

transformers = pytest.importorskip("transformers")
Run = Callable[[nn.Module], Tensor]


def siglip() -> tuple[nn.Module, Run, int]:
    config = transformers.SiglipVisionConfig(
        hidden_size=24, intermediate_size=13, num_hidden_layers=1, num_attention_heads=3, image_size=20, patch_size=5
    )
    pictures = torch.randn(2, 3, 20, 20)
    return transformers.SiglipVisionModel(config), lambda model: model(pictures).pooler_output, 1


def mask2former() -> tuple[nn.Module, Run, int]:
    stages = [f"stage{n}" for n in range(1, 5)]
    swin = transformers.SwinConfig(
        image_size=32, embed_dim=8, depths=[1] * 4, num_heads=[1, 2, 2, 2], window_size=2, out_features=stages
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=13,
        dim_feedforward=13,
        encoder_layers=1,
        decoder_layers=3,
        num_attention_heads=2,
        num_queries=7,
        num_labels=3,
    )
    pictures = torch.randn(2, 3, 64, 64)
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    return model, lambda model: model(pictures).masks_queries_logits, 2


@pytest.mark.parametrize("make", [siglip, pytest.param(mask2former, marks=pytest.mark.slow)])
def test_a_model_of_transformers(make: Callable[[], tuple[nn.Module, Run, int]]) -> None:
    theirs, run, count = make()
    ours = replace(copy.deepcopy(theirs.eval()))
    assert sum(isinstance(module, TorchMultiheadAttention) for module in ours.modules()) == count
    expected, given = run(theirs), run(ours)
    torch.testing.assert_close(given, expected)
    wanted, got = (
        torch.autograd.grad(y.square().sum(), list(model.parameters()), allow_unused=True, materialize_grads=True)
        for y, model in ((expected, theirs), (given, ours))
    )
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    theirs.load_state_dict(ours.state_dict())
    recordings = []
    for model in (theirs, ours):
        with hs.record(model) as recording:
            run(model)
        recordings.append([(layer.name, layer.kind) for layer in recording.layers])
    assert recordings[0] == recordings[1]


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize("first", ["replace", "peft"])
def test_low_rank_adapters_count_before_and_after(first: str) -> None:
    peft = pytest.importorskip("peft")
    theirs, x = Attends(), torch.randn(2, 5, 12)
    ours = copy.deepcopy(theirs)
    if first == "replace":
        replace(ours)
    options = peft.LoraConfig(target_modules=["attention"], r=2, init_lora_weights=False)
    theirs, ours = (peft.get_peft_model(model, options) for model in (theirs, ours))
    ours.load_state_dict(theirs.state_dict())
    if first == "peft":
        replace(ours)
    assert any(isinstance(module, TorchMultiheadAttention) for module in ours.modules())
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).square().sum().backward()
    assert all(p.grad is not None for name, p in ours.named_parameters() if "lora" in name)


def test_low_rank_adapters_of_the_output_alone() -> None:
    """Torch reads the weight and passes such an adapter by; here it counts, and merging changes nothing."""
    peft = pytest.importorskip("peft")
    model, x = replace(Attends()), torch.randn(2, 5, 12)
    before = model(x)
    options = peft.LoraConfig(target_modules=["out_proj"], r=2, init_lora_weights=False)
    adapted = peft.get_peft_model(model, options)
    found = adapted(x)
    assert (found - before).abs().max() > 1e-3
    found.square().sum().backward()
    assert all(p.grad is not None for name, p in adapted.named_parameters() if "lora" in name)
    with adapted.disable_adapter():
        torch.testing.assert_close(adapted(x), before)
    torch.testing.assert_close(adapted.merge_and_unload()(x), found)
