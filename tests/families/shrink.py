"""The configuration of an architecture, made small: the same architecture with a few thousand parameters."""

from __future__ import annotations

from typing import Any

WIDTH, HEADS, GROUPS, LAYERS, IMAGE, PATCH = 32, 4, 2, 2, 32, 8
# Words of a text are numbers below FIRST_SPECIAL; above are those of what is no word, such as the place of a picture.
FIRST_SPECIAL, VOCABULARY = 90, 131

# What each entry of a configuration is made to be, wherever it has a number there.
SMALL: dict[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "embedding_size", "word_embed_proj_dim", "hidden_dim",
         "encoder_hidden_size", "decoder_hidden_size", "projection_dim", "text_embed_dim", "emb_dim", "model_dim",
         "vision_output_dim", "out_hidden_size", "d_embed", "backbone_hidden_size", "lstm_hidden_dim",
         "cross_hidden_size", "audio_hidden_size", "fpn_hidden_size", "pooler_output_size", "mit_hidden_size",
         "fusion_hidden_size", "projector_out_channels", "text_hidden_size", "moe_hidden_size",
         "image_token_embed_dim", "pred_hidden_size", "descriptor_dim", "keypoint_detector_descriptor_dim",
         "adapter_in_dim", "adapter_out_dim", "adapter_input_size", "unit_embed_dim", "upsample_initial_channel",
         "hidden_size_global", "projection_hidden_size"),
        WIDTH),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads", "decoder_attention_heads",
         "attention_heads", "num_decoder_attention_heads", "num_encoder_attention_heads",
         "encoder_num_attention_heads", "decoder_num_attention_heads", "cross_num_attention_heads",
         "mit_num_attention_heads", "prompt_num_attention_heads", "decoder_self_attention_heads",
         "decoder_cross_attention_heads", "swa_num_attention_heads", "pred_num_attention_heads"), HEADS),
    **dict.fromkeys(
        ("num_key_value_heads", "num_kv_heads", "multi_query_group_num", "decoder_num_key_value_heads",
         "encoder_num_key_value_heads", "cross_num_key_value_heads", "swa_num_key_value_heads"), GROUPS),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers", "depth",
         "num_encoder_layers", "num_decoder_layers", "num_blocks", "num_encoder_blocks", "decoder_num_layers",
         "encoder_num_hidden_layers", "decoder_num_hidden_layers", "pred_num_hidden_layers"), LAYERS),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner", "d_inner",
         "moe_intermediate_size", "shared_expert_intermediate_size", "dim_feedforward", "ffn_hidden_size",
         "mit_intermediate_size", "quantization_dim", "projector_hidden_size", "expert_ffn_hidden_size",
         "dense_intermediate_size", "shared_intermediate_size", "moe_shared_expert_intermediate_size"), 2 * WIDTH),
    **dict.fromkeys(("vocab_size", "text_vocab_size", "audio_vocab_size", "decoder_vocab_size",
         "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(
        ("head_dim", "d_kv", "attention_head_dim", "global_head_dim", "attention_head_size",
         "cross_head_dim", "swa_head_dim"), WIDTH // HEADS),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "top_k", "num_selected_experts", "moe_top_k", "moe_k",
         "num_experts_per_token"), 2),
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "qk_head_dim": 16, "image_size": IMAGE, "patch_size": PATCH, "num_mel_bins": 16, "max_source_positions": 40,
    "max_target_positions": 64, "n_group": 1, "num_expert_group": 1, "linear_num_heads": HEADS,
    "linear_head_dim": WIDTH // HEADS, "topk_group": 1, "sliding_window": 8, "first_k_dense_replace": 1,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "conv_dim": (32,) * 7,
    "max_position_embeddings": 128, "n_positions": 128, "num_labels": 3, "codebook_size": 32, "num_codebooks": 2,
    "num_nextn_predict_layers": 0, "attention_dropout": 0.0, "num_channels": 3, "zero_expert_num": 2,
    "num_filters": 4, "base_channels": WIDTH, "latent_channels": WIDTH, "num_queries": 13, "num_frames": 4,
    "frames_per_clip": 4, "hidden_size_per_layer_input": WIDTH // 2, "mamba_n_heads": HEADS, "n_mamba_heads": HEADS,
    "mamba_num_heads": HEADS, "mamba_d_head": 2 * WIDTH // HEADS, "mamba_headdim": 2 * WIDTH // HEADS,
    "mamba_ngroups": 1, "mamba_head_dim": 2 * WIDTH // HEADS, "mamba_d_state": 16, "mamba_dt_rank": 4,
    "mamba_chunk_size": 16, "mm_tokens_per_image": 4,
}  # fmt: skip

# Entries that are lists of their own kind.
SMALL_LISTS = {"image_grid_pinpoints": [[IMAGE, IMAGE], [IMAGE, 2 * IMAGE]]}

# What is left open in some configurations, where no model can be built without it.
MISSING = {"head_dim": WIDTH // HEADS, "num_key_value_heads": HEADS}


def shrink(config: Any) -> Any:
    """Make a configuration and all inside it small, in place."""
    given = config.__dict__
    before = {name: value for name, value in given.items() if name in SMALL}
    layers = next((before[name] for name in ("num_hidden_layers", "n_layer", "num_layers") if name in before), None)
    for name, value in list(given.items()):
        if hasattr(value, "to_dict") and hasattr(value, "__dict__"):
            shrink(value)
        elif name in SMALL_LISTS and value:
            setattr(config, name, SMALL_LISTS[name])
        elif value is None and name in MISSING:
            setattr(config, name, MISSING[name])
        elif name in SMALL and isinstance(value, int | tuple | list) and not isinstance(value, bool):
            if isinstance(value, list | tuple) and not isinstance(SMALL[name], tuple):
                setattr(config, name, type(value)([SMALL[name]] * len(value)))
            elif isinstance(value, list | tuple) == isinstance(SMALL[name], tuple):
                setattr(config, name, SMALL[name])
        elif name.endswith(("_token_id", "_token_index")) and isinstance(value, int):
            if value >= FIRST_SPECIAL or name.startswith(("image", "video", "audio")):
                setattr(config, name, special(name))
        elif isinstance(value, list) and layers and len(value) == layers and name != "hidden_sizes":
            setattr(config, name, attending(ends(value)))
    for name in ("rope_parameters", "rope_scaling"):
        if isinstance(given.get(name), dict) and "mrope_section" in {
            *given[name], *(given.get("ignore_keys_at_rope_validation") or ()),
            *getattr(type(config), "ignore_keys_at_rope_validation", ()),
        }:  # fmt: skip
            size = given.get("head_dim") or WIDTH // HEADS
            half = int(size * given[name].get("partial_rotary_factor", 1.0)) // 2
            given[name]["mrope_section"] = [half - 2 * (half // 3), half // 3, half // 3]
    if given.get("num_key_value_heads") is not None and before.get("num_key_value_heads") == before.get(
        "num_attention_heads"
    ):
        config.num_key_value_heads = HEADS
    return config


def special(name: str) -> int:
    """The number of a token that is no word; the same for the same name, and different for the common ones."""
    common = ("image", "video", "audio", "vision_start", "vision_end", "bos", "eos", "pad")
    role = name.rpartition("_token_")[0]
    if role in common:
        return FIRST_SPECIAL + common.index(role)
    first = FIRST_SPECIAL + len(common)
    return first + sum(map(ord, role)) % (VOCABULARY - first)


def ends(values: list[Any]) -> list[Any]:
    """One of each kind of layer, as far as there is room for them."""
    kinds = list(dict.fromkeys(map(str, values)))
    found = [next(value for value in values if str(value) == kind) for kind in kinds]
    return (found + values[-LAYERS:])[-LAYERS:] if len(found) < LAYERS else found[:LAYERS]


def attending(kinds: list[Any]) -> list[Any]:
    """Kinds of layers, the last of which attends."""
    return [*kinds[:-1], "full_attention"] if all(kind == "linear_attention" for kind in kinds) else kinds


def find(config: Any, names: tuple[str, ...], otherwise: int) -> int:
    """A number of a configuration, or of one inside it."""
    for name in names:
        for part in (config, *(x for x in config.__dict__.values() if hasattr(x, "to_dict"))):
            value = getattr(part, name, None)
            if isinstance(value, list | tuple) and value:
                value = value[0]
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return otherwise
