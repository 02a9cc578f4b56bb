"""Entries of small configurations that no rule finds, since they must fit one another."""

from __future__ import annotations

from typing import Any

from tests.families.shrink import GROUPS, HEADS, IMAGE, LAYERS, PATCH, VOCABULARY, WIDTH, special

SEGMENT = {
    "vision_config.output_channels": WIDTH,
    "vision_config.global_attn_indexes": [1],
    "vision_config.window_size": 2,
    "vision_config.num_pos_feats": WIDTH // 2,
    "vision_config.mlp_dim": 2 * WIDTH,
    "prompt_encoder_config.image_embedding_size": IMAGE // PATCH,
    "mask_decoder_config.mlp_dim": 2 * WIDTH,
}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
QUANTISED = {"channel_multiplier": (1, 1), "resolution": IMAGE, "num_embeddings": 4}
PLACES = 4

# Entries of the configuration of a type, wherever it stands in another; a dot leads into a configuration inside it.
CONFIGS: dict[str, dict[str, Any]] = {
    "audio-spectrogram-transformer": {"max_length": 64},
    "bamba": {"attn_layer_indices": [1]},
    "blip-2": {"image_token_index": special("image_token_id"), "num_query_tokens": PLACES},
    "blt": {"encoder_hash_byte_group_vocab": 64, "global_config.encoder_cross_output_size": 2 * WIDTH},
    "aria": {"projector_patch_to_query_dict": {16: 4}},
    "chameleon": {
        "image_token_id": special("image_token_id"),
        "vocabulary_map": {
            "<image>": special("image_token_id"),
            **{f"IMGIMG{x}Z": 120 + i for i, x in enumerate("ABCD")},
        },
    },
    "chameleon_vqgan": QUANTISED,
    "cohere_compass_text": {"rope_parameters": {"full_attention": PLAIN | {"mrope_section": [2, 1, 1]}}},
    "dbrx": {"attn_config.rope_theta": 10000.0, "attn_config.kv_n_heads": GROUPS, "attn_config.clip_qkv": 8.0},
    "deepseek_ocr2_sam_vision_model": {
        "output_channels": WIDTH,
        "global_attn_indexes": [1],
        "window_size": 2,
        "mlp_dim": 64,
        "downsample_channels": [WIDTH, WIDTH],
    },
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense", "sparse"], "num_experts_per_tok": 2},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "depth_pro": {
        "patch_size": IMAGE,
        "intermediate_hook_ids": (1, 0),
        "intermediate_feature_dims": (WIDTH, WIDTH),
        "scaled_images_feature_dims": (WIDTH,) * 3,
    },
    "dia": {"delay_pattern": [0, 1, 2]},
    "diffusion_gemma": {
        "text_config.num_experts": 4,
        "text_config.top_k_experts": 2,
        "text_config.moe_intermediate_size": WIDTH,
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "efficientloftr": {"hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 8},
    "emu3": {
        "image_token_id": special("image_token_id"),
        "vocabulary_map": {
            "<image>": special("image_token_id"),
            **{f"<|visual token {i:06d}|>": 120 + i for i in range(4)},
            "<|extra_200|>": 119,
        },
    },
    "emu3_vqgan": {"channel_multiplier": (1, 1), "codebook_size": 4},
    "ernie4_5_vl_moe_text": {"rope_parameters": PLAIN | {"mrope_section": [1, 1, 2]}},
    "esm": {"vocab_size": VOCABULARY, "pad_token_id": 1, "mask_token_id": 2},
    "falcon_h1": {"mamba_d_ssm": 2 * WIDTH},
    "funnel": {
        "architectures": ["FunnelModel"],
        "block_sizes": (1, 1),
        "block_repeats": [1, 1],
        "d_head": WIDTH // HEADS,
    },
    "gemma3n_audio": {"input_feat_size": WIDTH, "conf_num_attention_heads": HEADS, "conf_num_hidden_layers": 2},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "granite4_vision": {
        "downsample_rate": "2/4",
        "deepstack_layer_map": [[-1, 0]],
        "spatial_target_layers": [0, 0, 1, 1],
    },
    "hrm_text": {"num_layers_per_stack": 1, "H_cycles": 1, "L_cycles": 1},
    "instructblip": {"image_token_index": special("image_token_id"), "num_query_tokens": PLACES},
    "instructblipvideo": {"video_token_index": special("video_token_id"), "num_query_tokens": PLACES},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "janus_vqgan": {"channel_multiplier": (1, 1), "num_embeddings": 16},
    "kosmos-2": {"latent_query_num": PLACES},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "llama4_vision_model": {
        "intermediate_size": 4 * WIDTH,
        "projector_input_dim": WIDTH,
        "projector_output_dim": WIDTH,
    },
    "lw_detr": {"projector_scale_factors": (1.0,), "projector_in_channels": [WIDTH], "num_feature_levels": 1},
    "lw_detr_vit": {
        "_out_features": ["stage1", "stage2"],
        "_out_indices": [1, 2],
        "num_windows": 4,
        "num_windows_side": 2,
        "window_block_indices": [0],
    },
    "mimi": {"upsample_groups": WIDTH},
    "mimi_decoder": {"upsample_groups": WIDTH},
    "minimax_m3_vl": {"merged_hidden_size": 4 * WIDTH},
    "mistral4": {"head_dim": 16},
    "mllama_vision_model": {"intermediate_layers_indices": [0], "num_global_layers": 1, "vision_output_dim": 2 * WIDTH},
    "mllama_text_model": {"cross_attention_layers": [1]},
    "moonshine": {"encoder_num_key_value_heads": HEADS, "decoder_num_key_value_heads": HEADS},
    "moonshine_streaming": {"num_key_value_heads": HEADS},
    "muse_spark_audio": {"hidden_sizes": (WIDTH, WIDTH), "patch_sizes": (16, 10), "depths": (1, 1)},
    "musicgen": {"decoder.vocab_size": 32, "audio_encoder.codebook_dim": WIDTH},
    "musicgen_melody": {"decoder.vocab_size": 32, "audio_encoder.codebook_dim": WIDTH},
    "nemotron_h": {"n_groups": 1},
    "neomme": {"head_dim": 16},
    "paddleocr_vl_text": {"rope_parameters": PLAIN | {"mrope_section": [2, 1, 1]}},
    "pocket_tts_audio_tokenizer": {"upsample_groups": WIDTH},
    "pocket_tts_audio_tokenizer_decoder": {"upsample_groups": WIDTH},
    "qwen2_5_omni_thinker": {"vision_start_token_id": special("vision_start_token_id")},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": special("vision_start_token_id")},
    "qwen4_exp_text": {
        "indexer_n_heads": HEADS,
        "indexer_kv_heads": 1,
        "indexer_head_dim": WIDTH // HEADS,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": GROUPS,
        "linear_num_value_heads": HEADS,
    },
    "radio": {"patch_dim": 3 * PATCH * PATCH},
    "recurrent_gemma": {"lru_width": WIDTH, "block_types": ["recurrent", "attention"]},
    "rf_detr_dinov2": {
        "_out_features": ["stage1", "stage2"],
        "_out_indices": [1, 2],
        "num_windows": 2,
        "window_block_indexes": [0],
    },
    "sam": SEGMENT,
    "sam2_hiera_det_model": {
        "embed_dim_per_stage": [WIDTH, 2 * WIDTH, 4 * WIDTH, 8 * WIDTH],
        "num_attention_heads_per_stage": [HEADS] * 4,
        "blocks_per_stage": [1, 1, 2, 1],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
        "image_size": [2 * IMAGE] * 2,
    },
    "sam2_prompt_encoder": {"image_size": 2 * IMAGE, "patch_size": 2 * PATCH},
    "sam2_vision_model": {
        "backbone_channel_list": [8 * WIDTH, 4 * WIDTH, 2 * WIDTH, WIDTH],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    },
    # Its first and its last block are convolutions.
    "sam3_lite_text_text_model": {"num_hidden_layers": LAYERS + 1},
    "sam3_vision_model": {"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]},
    "sam3_vit_model": {"window_size": 2, "global_attn_indexes": [1], "pretrain_image_size": IMAGE},
    "sam_hq": SEGMENT | {"mask_decoder_config.vit_dim": WIDTH},
    "sapiens2": {"num_key_value_heads_per_layer": [HEADS, GROUPS]},
    "sew": {"conv_dim": (WIDTH,) * 13},
    "siglip2_text_model": {"projection_size": WIDTH},
    "siglip_text_model": {"projection_size": WIDTH},
    "step3p7": {"text_config.sliding_window": 8},
    "swin": {
        "patch_size": 4,
        "window_size": 4,
        "depths": (1, 1),
        "num_heads": (2, 4),
        "num_layers": 2,
        "hidden_size": 2 * WIDTH,
    },
    "t5gemma2_text": {"dropout_rate": 0.0},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "attention_hidden_size": 2 * WIDTH,
        "attention_head_dim": 2 * WIDTH // HEADS,
    },
    "zamba2": {"attention_hidden_size": 2 * WIDTH, "attention_head_dim": 2 * WIDTH // HEADS, "hybrid_layer_ids": [1]},
}

# The class of a type that the table of base models of transformers leads astray.
CLASSES = {
    "evolla": "EvollaModel",
    "musicgen": "MusicgenForConditionalGeneration",
    "musicgen_melody": "MusicgenMelodyForConditionalGeneration",
}


def adapt(config: Any) -> Any:
    """A small configuration, with the entries in it, and in all inside it, that no rule finds."""
    for part in list(config.__dict__.values()):
        if hasattr(part, "to_dict") and hasattr(part, "__dict__"):
            adapt(part)
    for name, value in CONFIGS.get(getattr(config, "model_type", ""), {}).items():
        *path, last = name.split(".")
        part = config
        for step in path:
            part = getattr(part, step)
        setattr(part, last, value)
    return config
