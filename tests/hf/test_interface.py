"""`attn_implementation="headscope"`: outputs, gradients and generated tokens of eager attention, on runs of keys."""

import sys

import pytest
import torch
import transformers
from torch import nn
from transformers import masking_utils as theirs

import headscope as hs
from headscope.errors import BackendRefused, MaskError, MissingExtra
from headscope.hf.interface import attention, mask
from headscope.hf.lazy_mask import LazyMask
from tests.recording.tiny import KINDS, build

hs.hf.register()


def tokens_of(model, inputs, **options) -> torch.Tensor:
    """Twenty greedily generated tokens."""
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
    given = {name: x for name, x in inputs.items() if not name.startswith("decoder")}
    return model.generate(**given, max_new_tokens=20, min_new_tokens=20, do_sample=False, **options)


def left(inputs: dict) -> dict:
    """The same batch, padded on the left."""
    return inputs | {"attention_mask": inputs["attention_mask"].flip(1), "input_ids": inputs["input_ids"].flip(1)}


class TestModels:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("side", ["right", "left"])
    def test_outputs_and_gradients(self, kind, side):
        (ours, inputs), (eager, _) = build(kind, "headscope"), build(kind, "eager")
        real = inputs.get("attention_mask")
        if side == "left":
            if real is None:
                pytest.skip("no padding in this model")
            inputs = left(inputs)
            real = inputs["attention_mask"]
        outputs = []
        for model in (ours, eager):
            output = model(**inputs)[0]
            outputs.append(output[real.bool()] if real is not None and output.shape[:2] == real.shape else output)
            outputs[-1].square().sum().backward()
        torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
        largest = max(float(p.grad.abs().max()) for p in eager.parameters() if p.grad is not None)
        for mine, want in zip(ours.parameters(), eager.parameters(), strict=True):
            assert (mine.grad is None) == (want.grad is None)
            if want.grad is not None:
                torch.testing.assert_close(mine.grad, want.grad, atol=2e-5 * largest, rtol=1e-3)

    @pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "whisper"])
    @pytest.mark.parametrize("cache", [None, "static"])
    @pytest.mark.parametrize("side", ["right", "left"])
    def test_twenty_tokens(self, kind, cache, side):
        (ours, inputs), (eager, _) = build(kind, "headscope"), build(kind, "eager")
        if side == "left" and "attention_mask" in inputs:
            inputs = left(inputs)
        assert torch.equal(tokens_of(ours, inputs, cache_implementation=cache), tokens_of(eager, inputs))

    @pytest.mark.parametrize("kind", KINDS)
    def test_each_call_is_recorded_once(self, kind):
        model, inputs = build(kind, "headscope")
        plain, _ = build(kind)
        with torch.no_grad(), hs.record(model) as mine, hs.record(plain) as want:
            model(**inputs)
            plain(**inputs)
        assert [layer.name for layer in mine.layers] == [layer.name for layer in want.layers]
        for number, head, found in mine:
            torch.testing.assert_close(found.weights(), want[number, head].weights(), atol=1e-5, rtol=0)

    def test_a_sliding_window_never_meets_a_dense_mask(self, monkeypatch):
        def fail(*_, **__):
            raise AssertionError("a dense mask was made")

        torch.manual_seed(3)
        sizes = {
            "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 3,
            "intermediate_size": 23, "vocab_size": 97, "sliding_window": 5,
        }  # fmt: skip
        model, eager = (
            transformers.MistralForCausalLM._from_config(
                transformers.MistralConfig(**sizes), attn_implementation=how
            ).eval()
            for how in ("headscope", "eager")
        )
        eager.load_state_dict(model.state_dict())
        ids = torch.randint(3, 89, (2, 23))
        real = torch.ones_like(ids)
        real[0, :4] = 0
        want = [eager(ids).logits, eager(ids, attention_mask=real).logits]
        twenty = tokens_of(eager, {"input_ids": ids, "attention_mask": real})
        monkeypatch.setattr(theirs, "sdpa_mask", fail)
        monkeypatch.setattr(LazyMask, "written_out", fail)
        torch.testing.assert_close(model(ids).logits, want[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model(ids, attention_mask=real).logits[1], want[1][1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model(ids, attention_mask=real).logits[0, 4:], want[1][0, 4:], atol=1e-5, rtol=1e-5)
        assert torch.equal(tokens_of(model, {"input_ids": ids, "attention_mask": real}), twenty)

    def test_packed_sequences(self):
        ours, eager = build("llama", "headscope")[0], build("llama", "eager")[0]
        ids = torch.randint(3, 89, (1, 11))
        positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3]])
        outputs = [model(input_ids=ids, position_ids=positions, use_cache=False).logits for model in (ours, eager)]
        torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
        alone = eager(input_ids=ids[:, 4:7]).logits
        torch.testing.assert_close(outputs[0][:, 4:7], alone, atol=1e-5, rtol=1e-5)

    def test_registering_without_transformers(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(MissingExtra, match="pip install 'headscope"):
            hs.hf.register()


RULES = {
    "causal": theirs.causal_mask_function,
    "both ways": theirs.bidirectional_mask_function,
    "window": theirs.sliding_window_causal_mask_function(3),
    "window both ways": theirs.sliding_window_bidirectional_mask_function(2),
    "chunks": theirs.chunked_causal_mask_function(4, torch.zeros(2, dtype=torch.int64)),
    "or": theirs.or_masks(theirs.causal_mask_function, lambda b, h, q, k: k == 5),
}


class TestMask:
    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("sizes", [(7, 7, 0, 0), (1, 7, 6, 0), (3, 7, 4, 0), (2, 5, 9, 6), (3, 11, 2, 0)])
    @pytest.mark.parametrize("padded", [None, "left", "right"])
    def test_it_says_what_the_dense_one_says(self, rule, sizes, padded):
        queries, keys, q_offset, kv_offset = sizes
        real = None
        if padded is not None:
            real = torch.ones(2, q_offset + queries, dtype=torch.bool)
            real[1, : 2 if padded == "left" else None] = padded == "right"
            real[1, -2:] = padded == "left"
        given = {
            "batch_size": 2, "q_length": queries, "kv_length": keys, "q_offset": q_offset, "kv_offset": kv_offset,
            "mask_function": RULES[rule], "attention_mask": real,
        }  # fmt: skip
        want = theirs.sdpa_mask(**given, allow_is_causal_skip=False)
        found = mask(**given)
        assert found.shape == want.shape
        assert torch.equal(found.written_out(), want)
        for offset in (torch.tensor(q_offset),):
            assert torch.equal(mask(**given | {"q_offset": offset}).written_out(), want)

    def test_what_attention_does_without_a_mask_is_no_mask(self):
        def made(queries, keys, offset=0, first=0, rule=theirs.causal_mask_function, real=None, skip=True):
            return mask(2, queries, keys, offset, first, rule, real, device="cpu", allow_is_causal_skip=skip)

        window, real = theirs.sliding_window_causal_mask_function(5), torch.ones(2, 9).bool()
        assert made(7, 7) is made(1, 7, 6) is made(1, 5, 8, 4, window) is made(1, 9, 8, real=real) is None
        # Room of a static cache, which counts in a tensor, is behind the last query.
        written = torch.arange(9)[None] < 4
        assert made(4, 9, torch.tensor(0), real=written.expand(2, 9)) is None
        left = real.clone()
        left[1, 0] = False
        for hidden in (
            made(1, 7, 6, skip=False), made(1, 9, 8, real=left), made(1, 9, 5), made(3, 9, 6), made(7, 7, rule=window),
            made(7, 7, rule=theirs.bidirectional_mask_function),
        ):  # fmt: skip
            assert isinstance(hidden, LazyMask)

    def test_nothing_to_hide_is_no_mask(self):
        given = {"batch_size": 2, "q_length": 3, "kv_length": 3, "mask_function": theirs.bidirectional_mask_function}
        assert mask(**given, allow_is_bidirectional_skip=True) is None
        assert mask(**given, attention_mask=torch.ones(2, 3).bool(), allow_is_bidirectional_skip=True) is None
        assert mask(**given).all()


class TestLazyMask:
    def lazy(self) -> LazyMask:
        return LazyMask(hs.causal(), 2, 3, 5, "cpu")

    def test_what_does_not_change_it(self):
        lazy = self.lazy()
        assert isinstance(lazy, torch.Tensor)
        assert (lazy.shape, lazy.ndim, lazy.dtype, lazy.dim()) == ((2, 1, 3, 5), 4, torch.bool, 4)
        for same in (lazy.contiguous(), lazy.to("cpu"), lazy.to(torch.bool), lazy.detach()):
            assert same is lazy
        assert repr(lazy) == "LazyMask(causal(), (2, 1, 3, 5))"

    def test_what_computes_with_it_gets_the_dense_mask(self):
        lazy = self.lazy()
        dense = hs.causal().to_dense(3, 5).expand(2, 1, 3, 5)
        assert torch.equal(lazy[..., :4], dense[..., :4])
        assert torch.equal(~lazy, ~dense)
        assert torch.equal(lazy.to(torch.float32), dense.float())
        assert torch.equal(torch.where(lazy, 1.0, -2.0), torch.where(dense, 1.0, -2.0))
        assert torch.equal(torch.cat([lazy, lazy], -1), torch.cat([dense, dense], -1))

    def test_writing_into_it(self):
        lazy = self.lazy()
        kept = lazy.clone()
        lazy[..., 0] = False
        assert not lazy[..., 0].any()
        lazy.logical_not_()
        assert lazy[..., 0].all()
        assert torch.equal(kept, self.lazy().written_out())


class TestAttention:
    def qkv(self):
        torch.manual_seed(0)
        return torch.randn(2, 6, 3, 11), torch.randn(2, 2, 5, 11), torch.randn(2, 2, 5, 11)

    def test_causality_without_a_mask_counts_from_the_first_key(self):
        q, k, v = self.qkv()
        found = attention(nn.Module(), q, k, v, None, is_causal=True)[0]
        want = hs.attend(q, k[:, :, :3], v[:, :, :3], mask=hs.causal())
        torch.testing.assert_close(found, want.transpose(1, 2))
        module = nn.Module()
        module.is_causal = False
        found = attention(module, q, k, v, None)[0]
        torch.testing.assert_close(found, hs.attend(q, k, v).transpose(1, 2))

    def test_softcap_sinks_position_bias_and_scale(self):
        q, k, v = self.qkv()
        sinks, bias = torch.randn(6), torch.randn(1, 6, 3, 5)
        found = attention(
            nn.Module(), q, k, v, LazyMask(hs.causal(), 2, 3, 5, "cpu"),
            scaling=0.3, softcap=4.0, s_aux=sinks, position_bias=bias,
        )[0]  # fmt: skip
        want = hs.attend(
            q, k, v, mask=hs.causal(), bias=hs.dense_bias(bias), scale=0.3, softcap=4.0, sinks=sinks, backend="formula"
        )
        torch.testing.assert_close(found, want.transpose(1, 2))

    def test_mask_tensors_of_the_model_itself(self):
        q, k, v = self.qkv()
        seen = hs.causal().to_dense(3, 5)
        added = torch.randn(1, 1, 3, 5).masked_fill(~seen, torch.finfo(torch.float32).min).requires_grad_()
        found = attention(nn.Module(), q, k, v, added, position_bias=torch.ones(1, 6, 3, 5))[0]
        want = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=added, enable_gqa=True)
        torch.testing.assert_close(found, want.transpose(1, 2))
        gradients = [torch.autograd.grad(x.square().sum(), added, retain_graph=True)[0] for x in (found, want)]
        torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
        found = attention(nn.Module(), q, k, v, seen)[0]
        torch.testing.assert_close(found, hs.attend(q, k, v, mask=hs.causal()).transpose(1, 2))

    def test_refusals(self):
        q, k, v = self.qkv()
        with pytest.raises(BackendRefused, match="continuous batching"):
            attention(nn.Module(), q, k, v, None, cache=object())
        with pytest.raises(MaskError, match=r"the mask is \(2, 3, 5\)"):
            attention(nn.Module(), q, k, v, torch.ones(2, 3, 5))


def test_without_a_mask_a_bias_is_cut_to_the_keys_that_are_there():
    """A static cache has room for more keys than were written; causality is counted from the first."""
    torch.manual_seed(3)
    q, k, v = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 11, 7), torch.randn(2, 3, 11, 7)
    bias = torch.randn(1, 3, 5, 11)
    found = attention(nn.Module(), q, k, v, None, position_bias=bias)[0]
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
    mask = bias[..., :5].masked_fill(hidden, -torch.inf)
    want = torch.nn.functional.scaled_dot_product_attention(q, k[:, :, :5], v[:, :, :5], mask)
    torch.testing.assert_close(found, want.transpose(1, 2))


def test_a_learned_bias_that_is_zero_has_a_gradient():
    """BEiT's table of relative positions begins as zeros."""
    import transformers as hf

    config = hf.BeitConfig(
        hidden_size=20, num_hidden_layers=1, num_attention_heads=5, intermediate_size=23, image_size=16, patch_size=4,
        use_relative_position_bias=True,
    )  # fmt: skip
    pixels, found = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)), {}
    for how in ("sdpa", "headscope"):
        torch.manual_seed(0)
        model = hf.BeitModel._from_config(config, attn_implementation=how)
        model(pixels).last_hidden_state.pow(3).sum().backward()
        found[how] = [p.grad for name, p in model.named_parameters() if "bias_table" in name]
    assert found["sdpa"]
    for mine, other in zip(found["headscope"], found["sdpa"], strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (2, 1, 5, 1), (1, 3, 1, 7), (2, 1, 5, 9)])
def test_a_mask_of_one_column_is_for_all_keys_and_of_more_is_cut(shape, additive):
    made = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 4, generator=made) for n in (5, 7, 7))
    allowed = torch.rand(shape, generator=made) > 0.4
    mask = torch.randn(shape, generator=made) if additive else allowed
    cut = mask[..., :7]
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=cut)
    if not additive:
        want = want.masked_fill(~cut.any(-1, keepdim=True), 0.0)
    found = attention(torch.nn.Module(), q, k, v, mask)[0].transpose(1, 2)
    torch.testing.assert_close(found, want)


def test_a_mask_for_fewer_keys_is_named():
    q, k = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4)
    with pytest.raises(MaskError, match=r"the mask is \(2, 1, 5, 6\) and there are 7 keys"):
        attention(torch.nn.Module(), q, k, k, torch.ones(2, 1, 5, 6, dtype=torch.bool))
