"""Compiled, quantised and flexible models are recorded as they are, and are themselves again after the block."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import headscope as hs
from headscope.calls.sites import flex_attention as flex
from tests.recording.test_block import Layer
from tests.recording.tiny import build

pytestmark = pytest.mark.filterwarnings("ignore")


def graphs():
    """A backend that counts how often its graphs run."""
    runs = []

    def backend(module, _):
        return lambda *given: (runs.append(None), module(*given))[1]

    return runs, backend


class TestCompiled:
    @pytest.mark.parametrize("how", ["torch.compile", "model.compile", "a part of it"])
    def test_eager_inside_and_compiled_again_afterwards(self, how):
        torch._dynamo.reset()
        runs, backend = graphs()
        inner, x = nn.Sequential(Layer(), Layer()), torch.randn(2, 5, 12)
        want = inner(x)
        if how == "torch.compile":
            model = torch.compile(inner, backend=backend)
        else:
            (inner if how == "model.compile" else inner[1]).compile(backend=backend)
            model = inner
        before = model(x)
        count = len(runs)
        assert count
        with hs.record(model) as recording:
            during = model(x)
        assert len(runs) == count
        assert [layer.name for layer in recording.layers] == ["0", "1"]
        assert torch.equal(before, during)
        assert torch.equal(want, during)
        assert torch.equal(model(x), before)
        assert len(runs) == 2 * count

    def test_what_a_user_has_set_and_blocks_that_overlap(self):
        stance = torch._dynamo.eval_frame
        model, x = Layer(), torch.randn(2, 5, 12)
        a, b = hs.record(model), hs.record(model)
        with torch.compiler.set_stance("eager_on_recompile"):
            a.__enter__()
            b.__enter__()
            model(x)
            a.__exit__(None, None, None)
            assert stance._stance.stance == "force_eager"
            b.__exit__(None, None, None)
            assert stance._stance.stance == "eager_on_recompile"
        assert stance._stance.stance == "default"

    def test_training(self):
        torch._dynamo.reset()
        model, x = nn.Sequential(Layer(), Layer()), torch.randn(2, 5, 12)
        compiled = torch.compile(model, backend="aot_eager")
        gradients = []
        for _ in range(2):
            with hs.record(compiled) as recording:
                compiled(x).square().sum().backward()
            gradients.append([p.grad.clone() for p in model.parameters()])
            model.zero_grad()
            compiled(x).square().sum().backward()
            gradients.append([p.grad.clone() for p in model.parameters()])
            model.zero_grad()
        assert [layer.name for layer in recording.layers] == ["0", "1"]
        for found in zip(*gradients, strict=True):
            for other in found[1:]:
                torch.testing.assert_close(other, found[0], atol=1e-5, rtol=1e-4)


class TestQuantised:
    def quantised(self, how: str) -> nn.Module:
        model = build("bert")[0]
        if how == "dynamic":
            return torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
        for parent in [*model.modules()]:
            for name, child in [*parent.named_children()]:
                if isinstance(child, nn.Linear):
                    setattr(parent, name, Int8(child))
        return model

    @pytest.mark.parametrize("how", ["dynamic", "weights only"])
    def test_it_is_recorded_and_stays_as_it_is(self, how):
        model, inputs = self.quantised(how), build("bert")[1]
        with torch.no_grad():
            plain = model(**inputs)[0]
            with hs.record(model) as recording:
                during = model(**inputs)[0]
            model.set_attn_implementation("eager")
            eager = model(**inputs, output_attentions=True).attentions
        assert torch.equal(plain, during)
        assert len(recording.layers) == 3
        for layer, want in zip(recording.layers, eager, strict=True):
            torch.testing.assert_close(layer.head(2).weights(), want[0, 2], atol=1e-5, rtol=0)


class Int8(nn.Module):
    """A linear layer whose weights are kept in 8 bits."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.weight, self.bias = (linear.weight.detach() / self.scale).round().to(torch.int8), linear.bias

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale, self.bias)


class Flexible(nn.Module):
    """A module that calls flex_attention as the test says."""

    def __init__(self, function=flex_attention, **options):
        super().__init__()
        self.function, self.options = function, options

    def forward(self, q, k, v):
        return self.function(q, k, v, **self.options)


def rising(score, b, h, q, k):
    return score + 0.1 * (h + 1) * (k - q)


def capped(score, b, h, q, k):
    return 5 * torch.tanh(score / 5)


def hidden(score, b, h, q, k):
    return torch.where(q >= k, score, -float("inf"))


class TestFlex:
    def qkv(self, heads: int = 3):
        torch.manual_seed(4)
        return torch.randn(2, 6, 37, 16), torch.randn(2, heads, 41, 16), torch.randn(2, heads, 41, 8)

    def check(self, model, *tensors) -> hs.Recording:
        plain = model(*tensors)
        with hs.record(model) as recording:
            during = model(*tensors)
        assert torch.equal(plain, during)
        for _, number, head in recording:
            torch.testing.assert_close(head.values(), plain[0, number], atol=1e-5, rtol=0)
        return recording

    @pytest.mark.parametrize("mod", [None, rising, capped, hidden])
    @pytest.mark.parametrize("masked", [False, True])
    def test_masks_and_score_mods(self, mod, masked):
        mask = create_block_mask(lambda b, h, q, k: (q + 4 >= k) & (h != 1) | (k < 2), 2, 6, 37, 41, device="cpu")
        model = Flexible(score_mod=mod, block_mask=mask if masked else None, enable_gqa=True)
        layer = self.check(model, *self.qkv()).layers[0]
        assert layer.source == ("weights" if mod is capped else "call")
        assert (None if layer.bias is None else layer.bias.shape) == {
            None: None, hidden: None, rising: None, capped: (2, 6, 37, 41),
        }[mod]  # fmt: skip
        assert (None if layer.by_offset is None else layer.by_offset.shape) == ((6, 77) if mod is rising else None)
        assert (layer.runs is None) == (not masked and mod in (None, rising))

    def test_a_block_mask_whose_blocks_say_more_than_its_function(self):
        from torch.nn.attention.flex_attention import BlockMask

        one = torch.ones(1, 1, 3, dtype=torch.int32)
        mask = BlockMask.from_kv_blocks(
            one, torch.tensor([[[[0, 1, 2], [1, 0, 2], [2, 0, 1]]]], dtype=torch.int32),
            one * torch.tensor([0, 1, 0], dtype=torch.int32), torch.arange(3).expand(1, 1, 3, 3).int(),
            BLOCK_SIZE=16, mask_mod=lambda b, h, q, k: q >= k, seq_lengths=(48, 48),
        )  # fmt: skip
        torch.manual_seed(4)
        x = torch.randn(1, 2, 48, 16)
        self.check(Flexible(block_mask=mask), x, x, x)  # torch asks the function alone, and so do we
        # A fused kernel sees the blocks as well: that is what a call from a compiled region means, and gets.
        given = mask.as_tuple()
        seen = [flex.runs_of(given, x, x, blocks=blocks).block(slice(0, 48), 0, 48) for blocks in (False, True)]
        assert seen[0][0, 0].equal(torch.ones(48, 48).tril().bool())
        assert seen[1][0, 0].sum() == 3 * 16 * 17 // 2 + 16 * 16
        assert flex.needs_kernel(x, x, given)
        plain = create_block_mask(lambda b, h, q, k: q >= k, None, None, 48, 48, device="cpu")
        assert not flex.needs_kernel(x, x, plain.as_tuple())

    def test_compiled(self):
        torch._dynamo.reset()
        mask = create_block_mask(lambda b, h, q, k: q >= k, None, None, 37, 41, device="cpu")
        model = Flexible(torch.compile(flex_attention, backend="aot_eager"), block_mask=mask, enable_gqa=True)
        tensors = self.qkv()
        with hs.record(model) as recording:
            during = model(*tensors)
        want = Flexible(block_mask=mask, enable_gqa=True)(*tensors)
        torch.testing.assert_close(during, want)
        torch.testing.assert_close(recording[0, 5, 1].values(), want[1, 5], atol=1e-5, rtol=0)

    def test_long_scores_are_not_written_out(self, monkeypatch):
        backends = []
        compile_ = torch.compile

        def watched(function, *, backend, fullgraph):
            backends.append(backend)
            return compile_(function, backend="eager", fullgraph=fullgraph)

        torch._dynamo.reset()
        plain, fused = Flexible(enable_gqa=True), Flexible(torch.compile(flex_attention), enable_gqa=True)
        monkeypatch.setattr(flex, "LARGE", 6 * 37 * 41 * 4)
        monkeypatch.setattr(torch, "compile", watched)
        for model in (plain, fused):
            with hs.record(model):
                model(*self.qkv())
        assert backends.count("inductor") == 1
        assert backends[-1] == "inductor"

    @pytest.mark.parametrize("kind", ["bert", "llama"])
    def test_the_implementation_of_transformers(self, kind):
        (model, inputs), (eager, _) = build(kind, "flex_attention"), build(kind, "eager")
        with torch.no_grad(), hs.record(model) as recording, hs.record(eager) as want:
            model(**inputs)
            eager(**inputs)
        for layer, head, _ in recording:
            for item, real in ((0, 11), (1, 7)):
                mine = recording[layer, head, item].weights()[:real]
                torch.testing.assert_close(mine, want[layer, head, item].weights()[:real], atol=1e-5, rtol=0)
        assert len(recording.layers) == len(want.layers)
