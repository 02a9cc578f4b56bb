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
SWIN = {"patch_size": 4, "window_size": 4, "depths": (1, 1), "num_heads": (2, 4), "num_layers": 2}
FOUR_STAGES = {
    "backbone_config.depths": [1] * 4,
    "backbone_config.num_heads": [2, 2, 4, 4],
    "backbone_config.num_layers": 4,
    "backbone_config.hidden_size": 8 * WIDTH,
}
EVERY_STAGE = FOUR_STAGES | {
    "backbone_config._out_features": ["stage1", "stage2", "stage3", "stage4"],
    "backbone_config._out_indices": [1, 2, 3, 4],
}
SERIES = {
    "prediction_length": 4,
    "context_length": 8,
    "lags_sequence": [1, 2],
    "num_time_features": 1,
    "feature_size": 5,
}


def small_resnet(**options: Any) -> Any:
    """A small network of convolutions, in the place of one from a library that is not there."""
    from transformers import ResNetConfig

    return ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, WIDTH], depths=[1] * 4, **options)


RESNET = {"backbone_config": lambda: small_resnet(out_features=["stage1", "stage2", "stage3", "stage4"])}

# Entries of the configuration of a type, wherever it stands in another; a dot leads into a configuration inside it, and
# a function makes its value.
CONFIGS: dict[str, dict[str, Any]] = {
    "align": {"projection_dim": 640},
    "autoformer": SERIES | {"label_length": 4, "moving_average": 3},
    "bridgetower": {"hidden_size": 64, "text_config.hidden_size": 64, "vision_config.hidden_size": 64},
    "bros": {"dim_bbox_sinusoid_emb_2d": 16, "dim_bbox_sinusoid_emb_1d": 2, "dim_bbox_projection": WIDTH // HEADS},
    "clap": {
        "audio_config.patch_embeds_hidden_size": 8,
        "audio_config.depths": (1, 1),
        "audio_config.num_attention_heads": (2, 4),
        "audio_config.num_hidden_layers": 2,
        "audio_config.hidden_size": 16,
        "audio_config.patch_size": 4,
        "audio_config.spec_size": 64,
        "audio_config.window_size": 4,
    },
    "clvp": {
        "text_config.hidden_size": 4 * WIDTH,
        "speech_config.hidden_size": 4 * WIDTH,
        "decoder_config.decoder_fixing_codes": (83, 45, 45, 48),
    },
    "codegen": {"rotary_dim": WIDTH // HEADS},
    "conditional_detr": RESNET,
    "cvt": {"depth": [1, 2, 3]},
    "dab-detr": RESNET,
    "deformable_detr": RESNET | {"num_feature_levels": 4},
    "detr": RESNET,
    "donut-swin": SWIN | {"hidden_size": 2 * WIDTH},
    "efficientnet": {"hidden_dim": 2560},
    "encodec": {"codebook_dim": WIDTH},
    "fastspeech2_conformer_with_hifigan": {"vocoder_config.model_in_dim": 16},
    "gptj": {"rotary_dim": WIDTH // HEADS},
    "grounding-dino": FOUR_STAGES,
    "informer": SERIES,
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4, "input_size": IMAGE},
    "levit": {"patch_size": 16, "image_size": 2 * IMAGE},
    "lilt": {"hidden_size": 48},
    "luke": {"entity_vocab_size": 50, "entity_emb_size": WIDTH},
    "lxmert": {"visual_feat_dim": 16, "l_layers": 2, "x_layers": 1, "r_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "mask2former": EVERY_STAGE | {"feature_size": WIDTH, "mask_feature_size": WIDTH},
    "maskformer": FOUR_STAGES | {"fpn_feature_size": WIDTH, "mask_feature_size": WIDTH},
    "mm-grounding-dino": FOUR_STAGES,
    "mobilevitv2": {"patch_size": 2},
    "oneformer": EVERY_STAGE
    | {
        "conv_dim": WIDTH,
        "mask_dim": WIDTH,
        "text_encoder_width": WIDTH,
        "text_encoder_vocab_size": VOCABULARY,
        "text_encoder_num_layers": LAYERS,
    },
    "perceiver": {
        "num_latents": 7,
        "d_latents": WIDTH,
        "num_self_attends_per_block": LAYERS,
        "num_self_attention_heads": HEADS,
        "num_cross_attention_heads": HEADS,
    },
    "pvt": {"num_encoder_blocks": 4, "patch_sizes": [4, 2, 2, 2]},
    "reformer": {
        "attn_layers": ["local", "lsh"],
        "axial_pos_embds_dim": (16, 16),
        "axial_pos_shape": (8, 16),
        "attention_head_size": WIDTH // HEADS,
        "lsh_attn_chunk_length": 4,
        "local_attn_chunk_length": 4,
        "feed_forward_size": 2 * WIDTH,
        "num_buckets": 4,
    },
    "rwkv": {"attention_hidden_size": WIDTH},
    "seggpt": {
        "image_size": (2 * IMAGE, IMAGE),
        "pretrain_image_size": IMAGE,
        "merge_index": 0,
        "intermediate_hidden_state_indices": (0, 1),
        "mlp_dim": 2 * WIDTH,
    },
    "sew-d": {"conv_dim": (WIDTH,) * 13},
    "swin2sr": {"patch_size": 1, "window_size": 4, "depths": [1, 1], "num_heads": [2, 4], "num_layers": 2},
    "swinv2": SWIN | {"hidden_size": 2 * WIDTH, "pretrained_window_sizes": (0, 0)},
    "t5gemma": {"decoder.cross_attention_hidden_size": WIDTH},
    "table-transformer": RESNET,
    "time_series_transformer": SERIES,
    "tvp": {"backbone_config": small_resnet, "visual_prompt_size": 4, "max_img_size": 4 * IMAGE},
    "xcodec": {"codebook_dim": 2 * WIDTH},
    "xlstm": {"embedding_dim": WIDTH, "num_blocks": LAYERS, "qk_dim_factor": 1.0},
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
    "swin": SWIN | {"hidden_size": 2 * WIDTH},
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
        setattr(part, last, value() if callable(value) else value)
    return config
