"""Nine architectures, tiny and random: those that most other models are like, with inputs for every kind of mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PAD = 0
SIZES: dict[str, Any] = {"vocab_size": 97, "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 23}
GROUPED = SIZES | {"num_attention_heads": 6, "num_key_value_heads": 3, "pad_token_id": PAD}
# Decoders that take an attention mask, positions and a cache; the others are encoders, or have two sides.
DECODERS = ("llama", "mistral", "gemma3", "gpt_neox", "gpt_oss")
KINDS = (*DECODERS, "bert", "t5", "vit", "whisper")


def config_of(kind: str) -> Any:
    """The configuration of a tiny model; windows are shorter than the inputs."""
    import transformers as hf

    speech: dict[str, Any] = {
        "d_model": 20, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 5, "num_mel_bins": 13,
        "decoder_attention_heads": 5, "encoder_ffn_dim": 23, "decoder_ffn_dim": 23, "max_source_positions": 15,
        "max_target_positions": 31, "decoder_start_token_id": 1, "pad_token_id": PAD, "vocab_size": 97,
    }  # fmt: skip
    picture = {key: x for key, x in SIZES.items() if key != "vocab_size"} | {"num_attention_heads": 6}
    # The products of experts want rows of 16 bytes.
    experts = {
        "intermediate_size": 28,
        "num_local_experts": 3,
        "num_experts_per_tok": 2,
        "head_dim": 8,
        "sliding_window": 5,
    }
    text = {"d_model": 20, "d_kv": 7, "num_heads": 3, "num_layers": 2, "d_ff": 23, "decoder_start_token_id": 0}
    made = {
        "llama": lambda: hf.LlamaConfig(**GROUPED),
        "mistral": lambda: hf.MistralConfig(**GROUPED, sliding_window=5),
        "gemma3": lambda: hf.Gemma3TextConfig(
            **GROUPED, head_dim=8, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
        ),
        "gpt_neox": lambda: hf.GPTNeoXConfig(**SIZES, num_attention_heads=6, pad_token_id=PAD),
        "gpt_oss": lambda: hf.GptOssConfig(**GROUPED | experts),
        "bert": lambda: hf.BertConfig(**SIZES, num_attention_heads=6),
        "t5": lambda: hf.T5Config(**text, vocab_size=97),
        "vit": lambda: hf.ViTConfig(**picture, image_size=24, patch_size=8, num_labels=3),
        "whisper": lambda: hf.WhisperConfig(**speech),
    }
    config = made[kind]()
    for name in ("dropout_rate", "hidden_dropout_prob", "attention_probs_dropout_prob"):
        # Two implementations draw dropout in different orders.
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return config


def model_of(kind: str, how: str) -> Any:
    """The model with a head that gives a loss, the same numbers in it whatever computes its attention."""
    import transformers as hf

    heads = {
        "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "gemma3": "Gemma3ForCausalLM",
        "gpt_neox": "GPTNeoXForCausalLM", "gpt_oss": "GptOssForCausalLM", "bert": "BertForMaskedLM",
        "t5": "T5ForConditionalGeneration", "vit": "ViTForImageClassification",
        "whisper": "WhisperForConditionalGeneration",
    }  # fmt: skip
    torch.manual_seed(11)
    model = getattr(hf, heads[kind])._from_config(config_of(kind), attn_implementation=how)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "sinks" in name:
                p.normal_()
    return model.eval()


def batch(kind: str, padded: str = "ones") -> dict[str, Tensor]:
    """A batch of two: "ones" has a mask that hides nothing, "right" and "left" hide 4 of 11 positions of one item."""
    made = torch.Generator().manual_seed(7)
    if kind == "vit":
        return {"pixel_values": torch.randn(2, 3, 24, 24, generator=made)}
    ids = torch.randint(3, 89, (2, 11), generator=made)
    if kind == "whisper":
        return {"input_features": torch.randn(2, 13, 30, generator=made), "decoder_input_ids": ids[:, :5]}
    seen = torch.ones_like(ids)
    if padded == "right":
        seen[1, 7:] = 0
    elif padded == "left":
        seen[1, :4] = 0
    inputs = {"input_ids": ids, "attention_mask": seen}
    return inputs | {"decoder_input_ids": ids[:, :5]} if kind == "t5" else inputs


def packed() -> dict[str, Tensor]:
    """Three texts in one row, by their positions."""
    ids = torch.randint(3, 89, (1, 11), generator=torch.Generator().manual_seed(7))
    return {"input_ids": ids, "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3]])}


def real(inputs: dict[str, Tensor], output: Tensor) -> Tensor:
    """The outputs of positions that are no padding."""
    seen = inputs.get("attention_mask")
    return output[seen.bool()] if seen is not None and output.shape[:2] == seen.shape else output
