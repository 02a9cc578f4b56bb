"""Layers that others touch: LoRA, quantization, parametrizations, hooks, offload. The map is called, whatever it is."""

import copy

import peft
import pytest
import torch
from accelerate import cpu_offload
from torch import nn
from torch.nn.utils import parametrize

import headscope as hs
from headscope.nn import KeyValueCache, MultiheadAttention, Rotary
from headscope.nn.recipes import gpt2, llama
from headscope.nn.untouched import untouched


def layers() -> dict[str, MultiheadAttention]:
    """One layer of each packing."""
    return {
        "qkv": MultiheadAttention(20, 5),
        "q, kv": MultiheadAttention(20, 6, num_kv_heads=2, head_dim=4),
        "q, k, v": MultiheadAttention(20, 5, bias="qv"),
        "memory": MultiheadAttention(20, 5, kv_dim=20),
    }


def calls(layer: MultiheadAttention) -> list[torch.Tensor]:
    """Self-attention, cross-attention, and both with a cache."""
    torch.manual_seed(1)
    x, memory = torch.randn(2, 7, 20), torch.randn(2, 11, 20)
    cross, own = KeyValueCache(layer, 2), KeyValueCache(layer, 2)
    made = [layer(x, memory), layer(x[:, :3], memory, cache=cross), layer(x[:, 3:], cache=cross)]
    if not layer.project.of_memory:
        made += [layer(x, mask=hs.causal())]
        made += [layer(x[:, :5], mask=hs.causal(), cache=own), layer(x[:, 5:], mask=hs.causal(), cache=own)]
    return made


class LoRA(nn.Module):
    """A map beside the map, as peft adds it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.a, self.b = nn.Linear(base.in_features, 2, False), nn.Linear(2, base.out_features, False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.b(self.a(x))

    def merged(self) -> nn.Linear:
        made = copy.deepcopy(self.base)
        made.weight.data += self.b.weight @ self.a.weight
        return made


class Double(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


@pytest.mark.parametrize("kind", layers())
class TestMaps:
    def test_a_replaced_map_counts_in_every_call(self, kind):
        layer = layers()[kind]
        merged = copy.deepcopy(layer)
        for name in layer.project.packing:
            setattr(layer.project, name, LoRA(layer.project.part(name)))
            setattr(merged.project, name, layer.project.part(name).merged())
        layer.output = LoRA(layer.output)
        merged.output = layer.output.merged()
        torch.testing.assert_close(calls(layer), calls(merged))
        calls(layer)[0].sum().backward()
        assert all(p.grad is not None for name, p in layer.named_parameters() if ".b." in name)

    def test_hooks_run_in_every_call_and_may_change_the_output(self, kind):
        layer = layers()[kind]
        doubled = copy.deepcopy(layer)
        for name in layer.project.packing:
            for p in doubled.project.part(name).parameters():
                p.data *= 2
            layer.project.part(name).register_forward_hook(lambda module, args, output: 2 * output)
        torch.testing.assert_close(calls(layer), calls(doubled))

    def test_parametrized_weights(self, kind):
        layer = layers()[kind]
        doubled = copy.deepcopy(layer)
        for name in layer.project.packing:
            doubled.project.part(name).weight.data *= 2
            parametrize.register_parametrization(layer.project.part(name), "weight", Double())
        torch.testing.assert_close(calls(layer), calls(doubled))

    def test_dynamic_quantization_takes_every_map(self, kind):
        layer = layers()[kind].eval()
        want = calls(layer)
        with pytest.warns(DeprecationWarning, match="quantiz"):
            quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(layer), {nn.Linear}, dtype=torch.qint8)
        maps = [*map(quantized.project.part, quantized.project.packing), quantized.output]
        assert all("quantized" in type(one).__module__ for one in maps)
        for found, exact in zip(calls(quantized), want, strict=True):
            torch.testing.assert_close(found, exact, atol=0.05, rtol=0.05)

    def test_peft_adapts_merges_and_unloads(self, kind):
        layer = layers()[kind].eval()
        before, want = copy.deepcopy(layer.state_dict()), calls(layer)
        config = peft.LoraConfig(r=2, target_modules=[*layer.project.packing, "output"], init_lora_weights=False)
        adapted = peft.inject_adapter_in_model(config, layer).eval()
        found = calls(adapted)
        assert not torch.allclose(found[0], want[0])
        tuner = peft.tuners.lora.LoraModel(layers()[kind].eval(), config, "default")
        tuner.model.load_state_dict(adapted.state_dict())
        merged = tuner.merge_and_unload()
        assert merged.state_dict().keys() == before.keys()
        torch.testing.assert_close(calls(merged), found, atol=1e-5, rtol=1e-4)
        restored = peft.tuners.lora.LoraModel(copy.deepcopy(merged), config, "default").unload()
        torch.testing.assert_close(calls(restored), calls(merged), rtol=0, atol=0)

    def test_offloaded_maps(self, kind):
        layer = layers()[kind].eval()
        want = calls(layer)
        with torch.no_grad():
            torch.testing.assert_close(calls(cpu_offload(layer, execution_device="cpu")), want)


def test_hooks_on_all_modules_see_the_maps_of_a_cross_attention() -> None:
    layer, seen = layers()["qkv"], []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: seen.append(module))
    layer(torch.randn(2, 3, 20), torch.randn(2, 5, 20))
    handle.remove()
    assert seen.count(layer.project.qkv) == 2
    assert untouched(layer.project.qkv, nn.Linear)


@pytest.mark.parametrize("offload_buffers", [False, True])
def test_offloaded_models(offload_buffers: bool) -> None:
    """Embedding, tied output, rotary tables and sinks included."""
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    tied = gpt2(11, embed_dim=8, num_heads=2, layers=1, max_positions=16).eval()
    turned = llama(11, embed_dim=8, num_heads=2, num_kv_heads=1, layers=2, hidden_dim=12, rotary=Rotary(4)).eval()
    for model in (tied, turned):
        with torch.no_grad():
            want, new = model(ids), hs.nn.generate(model, [[1, 2], [3]], max_new=5)
            cpu_offload(model, execution_device="cpu", offload_buffers=offload_buffers)
            torch.testing.assert_close(model(ids), want)
        assert hs.nn.generate(model, [[1, 2], [3]], max_new=5) == new


def test_a_replaced_embedding_is_the_output_too() -> None:
    class Doubled(nn.Module):
        def __init__(self, base: nn.Embedding) -> None:
            super().__init__()
            self.base = base

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return 2 * self.base(ids)

    model, ids = gpt2(11, embed_dim=8, num_heads=2, layers=1, max_positions=16).eval(), torch.tensor([[1, 2, 3]])
    want = copy.deepcopy(model)
    want.target.tokens.weight.data *= 2
    model.target.tokens = model.output.tokens = Doubled(model.target.tokens)
    torch.testing.assert_close(model(ids), want(ids))
