"""Inputs of a kind of their own, for models that no rule of `inputs.py` has one for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.families.inputs import FRAMES, WORDS
from tests.families.shrink import FIRST_SPECIAL, IMAGE, PATCH, WIDTH, special
from tests.families.special_configs import PLACES


def words(length: int = WORDS) -> Tensor:
    return torch.randint(3, FIRST_SPECIAL, (2, length))


def text() -> dict[str, Any]:
    """A text of two lines, the second of which is padded."""
    real = torch.ones(2, WORDS, dtype=torch.long)
    real[1, 8:] = 0
    return {"input_ids": words(), "attention_mask": real}


def after_places(token: int) -> Tensor:
    return torch.cat((torch.full((2, PLACES), token), words()), 1)


def picture(*more: int) -> Tensor:
    return torch.randn(2, *more, 3, IMAGE, IMAGE)


def grid() -> Tensor:
    return torch.tensor([[1, 4, 4], [1, 4, 4]])


# The inputs of a type, made from its configuration.
INPUTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "audio-spectrogram-transformer": lambda c: {"input_values": torch.randn(2, c.max_length, c.num_mel_bins)},
    "blip-2": lambda c: {"input_ids": after_places(c.image_token_index), "pixel_values": picture()},
    "blip_2_qformer": lambda c: {
        "query_embeds": torch.randn(2, 5, WIDTH),
        "encoder_hidden_states": torch.randn(2, 7, WIDTH),
    },
    "blt": lambda c: {"input_ids": words(), "use_cache": False},
    "decision_transformer": lambda c: {
        "states": torch.randn(2, 5, c.state_dim),
        "actions": torch.randn(2, 5, c.act_dim),
        "rewards": torch.randn(2, 5, 1),
        "returns_to_go": torch.randn(2, 5, 1),
        "timesteps": torch.arange(5).expand(2, 5),
    },
    "depth_pro": lambda c: {"pixel_values": torch.randn(2, 3, 4 * IMAGE, 4 * IMAGE)},
    "dia": lambda c: {"input_ids": words(), "decoder_input_ids": torch.randint(0, 90, (2, 5, 3))},
    "efficientloftr": lambda c: {"pixel_values": torch.randn(2, 2, 3, 3 * IMAGE, 3 * IMAGE)},
    "evolla": lambda c: {
        "input_ids": words(),
        "attention_mask": torch.ones(2, WORDS, dtype=torch.long),
        "protein_input_ids": torch.randint(4, 20, (2, 9)),
        "protein_attention_mask": torch.ones(2, 9, dtype=torch.long),
    },
    "fun_asr_nano_encoder": lambda c: {
        "input_features": torch.randn(2, FRAMES, c.num_mel_bins * c.num_stacked_frames),
        "input_features_mask": torch.ones(2, FRAMES, dtype=torch.long),
    },
    "gemma3n_audio": lambda c: {
        "audio_mel": torch.randn(2, FRAMES, c.input_feat_size),
        "audio_mel_mask": torch.zeros(2, FRAMES, dtype=torch.bool),
    },
    "gemma4_vision": lambda c: {
        "pixel_values": torch.randn(2, 36, 3 * PATCH * PATCH),
        "pixel_position_ids": torch.cartesian_prod(torch.arange(6), torch.arange(6)).expand(2, 36, 2),
    },
    "granite_speech5_ctc": lambda c: {"input_features": torch.randn(2, FRAMES, 64)},
    "granite_speech5_encoder": lambda c: {"input_features": torch.randn(2, FRAMES, 64)},
    "idefics": lambda c: {
        "input_ids": words(),
        "pixel_values": picture(1),
        "image_attention_mask": torch.ones(2, WORDS, 1, dtype=torch.long),
    },
    "inkling2_vision": lambda c: {"pixel_values": torch.randn(32, 16, 16, 3), "image_grid_thw": grid()},
    "instructblip": lambda c: {
        "input_ids": after_places(c.image_token_index),
        "pixel_values": picture(),
        "qformer_input_ids": words(7),
    },
    "instructblipvideo": lambda c: {
        "input_ids": torch.cat((torch.full((2, PLACES * 3), c.video_token_index), words()), 1),
        "pixel_values": picture(4),
        "qformer_input_ids": words(7),
    },
    "kimi_k25_vision": lambda c: {"pixel_values": torch.randn(32, 3, PATCH, PATCH), "grid_thw": grid()},
    "kosmos-2": lambda c: {
        "input_ids": words(15),
        "pixel_values": picture(),
        "image_embeds_position_mask": (torch.arange(15) < PLACES).long().expand(2, 15),
    },
    "kyutai_speech_to_text": lambda c: {"input_ids": torch.randint(3, 90, (2, WORDS, c.num_codebooks + 1))},
    "mimi_decoder": lambda c: {"latents": torch.randn(2, WIDTH, 9)},
    "minicpm_ocr_vision": lambda c: {
        "pixel_values": torch.randn(1, 3, PATCH, PATCH * 32),
        "target_sizes": grid()[:, 1:],
    },
    "minicpmv4_7_vision": lambda c: {
        "pixel_values": torch.randn(1, 3, PATCH, PATCH * 32),
        "target_sizes": grid()[:, 1:],
    },
    "mllama": lambda c: {
        "input_ids": words(),
        "pixel_values": picture(1, 4),
        "aspect_ratio_ids": torch.ones(2, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(2, 1, 4, dtype=torch.long),
        "cross_attention_mask": torch.ones(2, WORDS, 1, 4, dtype=torch.long),
    },
    "muse_glimmer_assistant": lambda c: {
        "noise_embeds": torch.randn(2, 5, WIDTH),
        "context_hidden_states": torch.randn(2, 7, 2 * WIDTH),
    },
    "musicgen": lambda c: {
        "input_ids": words(),
        "decoder_input_ids": torch.randint(0, 30, (2 * c.decoder.num_codebooks, 5)),
    },
    "musicgen_melody": lambda c: {
        "input_ids": words(),
        "decoder_input_ids": torch.randint(0, 30, (2 * c.decoder.num_codebooks, 5)),
    },
    "nemotron3_5_transcribe_word_timestamp": lambda c: {"inputs_embeds": torch.randn(2, 13, WIDTH)},
    "neucodec": lambda c: {"input_values": torch.randn(2, 1, 3200), "input_features": torch.randn(2, 10, 160)},
    "paddleocr_vl": lambda c: {
        "input_ids": torch.cat((torch.full((2, 4), c.image_token_id), words()), 1),
        "pixel_values": torch.randn(32, 3, PATCH, PATCH),
        "image_grid_thw": grid(),
        "mm_token_type_ids": (torch.arange(4 + WORDS) < 4).long().expand(2, 4 + WORDS),
    },
    "pe_audio": lambda c: {"input_ids": words(), "input_values": torch.randn(2, 1, 3840)},
    "pi0": lambda c: {
        "action_embeds": torch.randn(2, 5, WIDTH),
        "input_ids": torch.cat((torch.full((2, 16), special("image_token_id")), words()), 1),
        "pixel_values": picture(1),
        "pixel_attention_mask": torch.ones(2, 1).bool(),
        "attention_mask": torch.ones(2, 16 + WORDS, dtype=torch.long),
    },
    "pocket_tts_audio_tokenizer_decoder": lambda c: {"latents": torch.randn(2, c.latent_dim, 9)},
    "qwen3_asr_encoder": lambda c: {
        "input_features": torch.randn(2, c.num_mel_bins, 200),
        "input_features_mask": torch.ones(2, 200, dtype=torch.long),
    },
    "sam": lambda c: {"pixel_values": picture(), "input_points": torch.rand(2, 1, 2, 2) * IMAGE},
    "sam2": lambda c: {
        "pixel_values": torch.randn(2, 3, 2 * IMAGE, 2 * IMAGE),
        "input_points": torch.rand(2, 1, 2, 2) * IMAGE,
    },
    "sam2_hiera_det_model": lambda c: {"pixel_values": torch.randn(2, 3, 2 * IMAGE, 2 * IMAGE)},
    "sam2_vision_model": lambda c: {"pixel_values": torch.randn(2, 3, 2 * IMAGE, 2 * IMAGE)},
    "timesfm": lambda c: {
        "past_values": torch.randn(2, 4 * c.patch_length),
        "past_values_padding": torch.zeros(2, 4 * c.patch_length),
        "freq": torch.zeros(2, 1, dtype=torch.long),
    },
    "timesfm2_5": lambda c: {"past_values": torch.randn(2, 4 * c.patch_length)},
    "udop": lambda c: {
        "input_ids": words(),
        "bbox": torch.rand(2, WORDS, 4).sort(-1).values,
        "decoder_input_ids": words(5),
    },
    "voxtral_realtime": lambda c: {"input_ids": words(10), "input_features": torch.randn(2, 16, 80)},
    "xcodec2": lambda c: {"input_values": torch.randn(2, 1, 3200), "input_features": torch.randn(2, 10, 160)},
}
INPUTS |= {
    "bros": lambda c: text() | {"bbox": torch.rand(2, WORDS, 4).sort(-1).values},
    "clap": lambda c: text() | {"input_features": torch.randn(2, 1, 100, 16)},
    "clvp": lambda c: text() | {"input_features": torch.randn(2, 80, 20)},
    "gemma4_audio": lambda c: {
        "input_features": torch.randn(2, FRAMES, 128),
        "attention_mask": torch.ones(2, FRAMES, dtype=torch.bool),
    },
    "grounding-dino": lambda c: text() | {"pixel_values": torch.randn(2, 3, 2 * IMAGE, 2 * IMAGE)},
    "layoutlmv3": lambda c: (
        text()
        | {
            "bbox": torch.randint(0, 90, (2, WORDS, 4)).sort(-1).values,
            "pixel_values": torch.randn(2, 3, IMAGE, IMAGE),
        }
    ),
    "lilt": lambda c: text() | {"bbox": torch.randint(0, 90, (2, WORDS, 4)).sort(-1).values},
    "lxmert": lambda c: text() | {"visual_feats": torch.randn(2, 7, 16), "visual_pos": torch.rand(2, 7, 4)},
    "oneformer": lambda c: {"pixel_values": torch.randn(2, 3, 2 * IMAGE, 2 * IMAGE), "task_inputs": torch.ones(2, 77)},
    "perceiver": lambda c: {"inputs": torch.randn(2, 13, WIDTH)},
    "seggpt": lambda c: {
        name: torch.rand(2, 3, IMAGE, IMAGE) for name in ("pixel_values", "prompt_pixel_values", "prompt_masks")
    },
    "speecht5": lambda c: {
        "input_values": torch.randn(2, 13, WIDTH),
        "decoder_input_values": torch.randn(2, 5, WIDTH),
    },
    # One item: its positions are not made for more.
    "tvp": lambda c: {"input_ids": words()[:1], "pixel_values": torch.randn(1, 4, 3, 4 * IMAGE, 4 * IMAGE)},
    "vibevoice_acoustic_tokenizer_decoder": lambda c: {"hidden_states": torch.randn(2, c.hidden_size, 4)},
    "vibevoice_acoustic_tokenizer_encoder": lambda c: {"hidden_states": torch.randn(2, 1, 3200)},
}
INPUTS |= dict.fromkeys(
    ("autoformer", "informer", "time_series_transformer"),
    lambda c: {
        "past_values": torch.rand(2, 10),
        "past_time_features": torch.randn(2, 10, 1),
        "past_observed_mask": torch.ones(2, 10),
        "future_values": torch.rand(2, 4),
        "future_time_features": torch.randn(2, 4, 1),
    },
)
INPUTS |= dict.fromkeys(
    (
        "conditional_detr",
        "convnext",
        "convnextv2",
        "dab-detr",
        "deformable_detr",
        "detr",
        "mobilevitv2",
        "table-transformer",
    ),
    lambda c: {"pixel_values": torch.randn(2, 3, 2 * IMAGE, 2 * IMAGE)},
)
INPUTS["mm-grounding-dino"] = INPUTS["grounding-dino"]
INPUTS |= dict.fromkeys(
    ("pp_ocrv5_mobile_rec", "pp_ocrv5_server_rec", "pp_ocrv6_small_rec", "pp_ocrv6_tiny_rec"),
    lambda c: {"pixel_values": torch.randn(2, 3, 96, 96)},
)
INPUTS["sam_hq"] = INPUTS["sam3_tracker"] = INPUTS["sam"]
