"""The steps of a generation become one layer, equal to one forward pass over the whole sequence."""

import pytest
import torch

import headscope as hs
from headscope.calls.call import Call
from headscope.recording.layer import Layer
from headscope.recording.steps import Steps, continues, fingerprints_of
from tests.recording.tiny import build

NEW = 6


def generate(model, inputs, **options):
    """A greedy generation of a fixed number of tokens, recorded."""
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
    selection = {name: options.pop(name) for name in ("queries", "heads", "values") if name in options}
    with torch.no_grad(), hs.record(model, **selection) as recording:
        output = model.generate(
            **inputs, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, return_dict_in_generate=True, **options
        )
    return recording, output


def prompt(kind: str):
    """A decoder and a prompt that is padded on the left."""
    model, inputs = build(kind)
    return model, inputs | {"attention_mask": inputs["attention_mask"].flip(1)}


def whole(model, inputs, sequences) -> hs.Recording:
    """One forward pass over finished sequences (without their last token, which is never asked)."""
    mask = inputs["attention_mask"].repeat_interleave(len(sequences) // len(inputs["attention_mask"]), 0)
    mask = torch.cat([mask, torch.ones(len(sequences), NEW - 1, dtype=torch.long)], 1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad(), hs.record(model) as recording:
        model(input_ids=sequences[:, :-1], attention_mask=mask, position_ids=positions)
    return recording


def distance(a: hs.Head, b: hs.Head, padded: int) -> float:
    return float((a.weights() - b.weights())[padded:].abs().max())


class TestDecoders:
    @pytest.mark.parametrize("kind", ["llama", "gpt2"])
    @pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}, {"prefill_chunk_size": 4}])
    def test_one_head_for_all_steps(self, kind, options):
        model, inputs = prompt(kind)
        recording, output = generate(model, inputs, **options)
        want = whole(model, inputs, output.sequences)
        assert [layer.name for layer in recording.layers] == [layer.name for layer in want.layers]
        for layer, head, found in recording:
            for item, padded in ((0, 0), (1, 4)):
                assert distance(recording[layer, head, item], want[layer, head, item], padded) < 1e-4
                torch.testing.assert_close(
                    recording[layer, head, item].values()[padded:],
                    want[layer, head, item].values()[padded:],
                    atol=1e-4,
                    rtol=0,
                )
            assert found.queries.length == found.keys.length == 11 + NEW - 1

    @pytest.mark.parametrize("cache", [None, "static"])
    def test_a_sliding_cache_keeps_every_key(self, cache):
        import transformers as hf

        torch.manual_seed(5)
        config = hf.MistralConfig(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=3, intermediate_size=23,
            vocab_size=97, sliding_window=5,
        )  # fmt: skip
        model = hf.MistralForCausalLM._from_config(config, attn_implementation="sdpa").eval()
        inputs = {"input_ids": torch.randint(3, 89, (2, 7)), "attention_mask": torch.ones(2, 7, dtype=torch.long)}
        recording, output = generate(model, inputs, cache_implementation=cache)
        want = whole(model, inputs, output.sequences)
        for layer, head, found in recording:
            assert (found.runs.stop - found.runs.start).sum(-1).max() == 5
            assert found.keys.length == 7 + NEW - 1
            assert distance(found, want[layer, head], 0) < 1e-4

    @pytest.mark.parametrize("kind", ["llama", "gpt2"])
    def test_beams_carry_the_history_of_the_beam_they_came_from(self, kind):
        model, inputs = prompt(kind)
        recording, output = generate(model, inputs, num_beams=4, num_return_sequences=4)
        assert recording.layers[0].items == 8
        want = whole(model, inputs, output.sequences)
        for item in range(8):
            batch = item // 4
            mine = (distance(recording[1, 2, 4 * batch + beam], want[1, 2, item], 4 * batch) for beam in range(4))
            assert min(mine) < 1e-4

    def test_selected_queries_heads_and_no_values(self):
        model, inputs = prompt("llama")
        full, _ = generate(model, inputs)
        part, _ = generate(model, inputs, queries="last", heads=[1, 4], values=False)
        layer = part.layers[0]
        assert layer.rows == tuple(range(10, 16))
        assert layer.v is None
        assert layer.queries[0] == layer.keys[0].select(range(10, 16))
        torch.testing.assert_close(part[1, 4, 1].weights(), full[1, 4, 1].weights(range(10, 16)))

    def test_two_generations_in_one_block_stay_apart(self):
        model, inputs = prompt("llama")
        with torch.no_grad(), hs.record(model) as recording:
            for _ in range(2):
                model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
        assert [layer.q.shape[2] for layer in recording.layers] == [13] * 4


class TestEncoderDecoders:
    @pytest.mark.parametrize("kind", ["t5", "whisper"])
    @pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}])
    def test_encoder_decoder_and_cross(self, kind, options):
        model, inputs = build(kind)
        inputs = {name: x for name, x in inputs.items() if not name.startswith("decoder")}
        recording, output = generate(model, inputs, **options)
        with torch.no_grad(), hs.record(model) as want:
            model(**inputs, decoder_input_ids=output.sequences[:, : recording.layers[-1].q.shape[2]])
        assert [(layer.name, layer.kind) for layer in recording.layers] == [(x.name, x.kind) for x in want.layers]
        real = 7 if kind == "t5" else 15
        for position, layer in enumerate(recording.layers):
            rows = real if layer.name.startswith("encoder") else None
            for head in range(layer.heads):
                gap = layer.head(head, 1).weights() - want.layers[position].head(head, 1).weights()
                assert gap[:rows].abs().max() < 1e-4


class TestContinues:
    def steps(self, keys: int = 5) -> tuple[Steps, torch.Tensor]:
        torch.manual_seed(1)
        k = torch.randn(2, 3, keys + 4, 7)
        layer = Layer("", "self", k, k, None, None, 1.0)
        return Steps(layer, fingerprints_of(k[:, :, :keys]), keys), k

    def call(self, k: torch.Tensor, asked: int = 1) -> Call:
        return Call(torch.zeros(2, 3, asked, 7), k, k, None, None, 1.0)

    def test_more_keys_after_the_same_ones(self):
        steps, k = self.steps()
        assert continues(steps, self.call(k[:, :, :6]), False) == (0, 6, None)
        assert continues(steps, self.call(k[:, :, :8], 3), False) == (0, 8, None)

    def test_the_last_keys_and_one_more(self):
        steps, k = self.steps()
        assert continues(steps, self.call(k[:, :, 2:6]), False) == (2, 4, None)

    def test_something_else(self):
        steps, k = self.steps()
        assert continues(steps, self.call(torch.randn(2, 3, 6, 7)), False) is None
        assert continues(steps, self.call(k[:, :, :5], 5), False) is None
        assert continues(steps, self.call(k[:1, :, :6]), False) is None

    def test_items_that_changed_places(self):
        steps, k = self.steps()
        found = continues(steps, self.call(k[:, :, :6].flip(0)), False)
        assert found[:2] == (0, 6)
        assert found[2].tolist() == [1, 0]
