"""Tiny random models of Hugging Face for the tests, each with an input whose batch is padded where it can be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PAD = 0


def build(kind: str, how: str = "sdpa") -> tuple[torch.nn.Module, dict[str, Any]]:
    """A tiny random model in evaluation mode, and its input; the same numbers whenever it is called."""
    import transformers as hf

    torch.manual_seed(7)
    ids = torch.randint(3, 89, (2, 11))
    attended = torch.ones_like(ids)
    attended[1, 7:] = 0
    text = {"input_ids": ids, "attention_mask": attended}
    sizes: dict[str, Any] = {"vocab_size": 97}
    if kind == "bert":
        config: Any = hf.BertConfig(
            hidden_size=20, num_hidden_layers=3, num_attention_heads=5, intermediate_size=23, **sizes
        )
        model, inputs = hf.BertModel, text
    elif kind == "gpt2":
        config = hf.GPT2Config(n_embd=21, n_layer=2, n_head=3, n_positions=64, **sizes)
        model, inputs = hf.GPT2LMHeadModel, text
    elif kind == "t5":
        config = hf.T5Config(d_model=20, d_kv=7, num_heads=3, num_layers=2, d_ff=23, decoder_start_token_id=0, **sizes)
        model, inputs = hf.T5ForConditionalGeneration, text | {"decoder_input_ids": ids[:, :5]}
    elif kind == "vit":
        config = hf.ViTConfig(
            hidden_size=20,
            num_hidden_layers=2,
            num_attention_heads=5,
            intermediate_size=23,
            image_size=24,
            patch_size=8,
        )
        model, inputs = hf.ViTModel, {"pixel_values": torch.randn(2, 3, 24, 24)}
    elif kind == "whisper":
        config = hf.WhisperConfig(
            d_model=20, encoder_layers=2, decoder_layers=2, encoder_attention_heads=5, decoder_attention_heads=5,
            encoder_ffn_dim=23, decoder_ffn_dim=23, num_mel_bins=13, max_source_positions=15, max_target_positions=31,
            decoder_start_token_id=1, pad_token_id=PAD, **sizes,
        )  # fmt: skip
        model = hf.WhisperForConditionalGeneration
        inputs = {"input_features": torch.randn(2, 13, 30), "decoder_input_ids": ids[:, :5]}
    elif kind == "llama":
        config = hf.LlamaConfig(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=3, intermediate_size=23,
            pad_token_id=PAD, **sizes,
        )  # fmt: skip
        model, inputs = hf.LlamaForCausalLM, text
    else:
        raise AssertionError(kind)
    torch.manual_seed(11)
    built = model._from_config(config, attn_implementation=how).eval()
    return built, inputs


def eager_weights(output: Any) -> list[Tensor]:
    """Every matrix of weights that an output holds: encoder, decoder, cross."""
    names = ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions")
    return [weights for name in names for weights in (getattr(output, name, None) or ()) if weights is not None]


KINDS = ("bert", "gpt2", "t5", "vit", "whisper", "llama")
