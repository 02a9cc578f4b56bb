"""A tiny random model of every architecture in transformers, built from its configuration alone, and an input for "
"it."""

from __future__ import annotations

import inspect
from typing import Any

import torch

WIDTH, HEADS, GROUPS, LAYERS, VOCABULARY, IMAGE, PATCH = 32, 4, 2, 2, 99, 32, 8

# What each entry of a configuration is made to be, wherever it has a number there.
SMALL: dict[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "embedding_size", "word_embed_proj_dim", "hidden_dim",
         "encoder_hidden_size", "decoder_hidden_size", "projection_dim", "text_embed_dim", "emb_dim", "model_dim",
         "vision_output_dim", "out_hidden_size", "d_embed", "backbone_hidden_size", "lstm_hidden_dim"), WIDTH),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads", "decoder_attention_heads",
         "attention_heads", "num_decoder_attention_heads", "num_encoder_attention_heads"), HEADS),
    **dict.fromkeys(
        ("num_key_value_heads", "num_kv_heads", "multi_query_group_num", "decoder_num_key_value_heads"), GROUPS),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers", "depth",
         "num_encoder_layers", "num_decoder_layers", "num_blocks", "num_encoder_blocks", "decoder_num_layers"), LAYERS),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner", "d_inner",
         "moe_intermediate_size", "shared_expert_intermediate_size", "dim_feedforward", "ffn_hidden_size"), 2 * WIDTH),
    **dict.fromkeys(("vocab_size", "text_vocab_size", "audio_vocab_size", "decoder_vocab_size"), VOCABULARY),
    **dict.fromkeys(
        ("head_dim", "d_kv", "attention_head_dim", "global_head_dim", "attention_head_size"), WIDTH // HEADS),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "top_k", "num_selected_experts", "moe_top_k"), 2),
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "qk_head_dim": 16,
    "image_size": IMAGE, "patch_size": PATCH, "num_mel_bins": 16, "max_source_positions": 40,
    "max_target_positions": 64,
    "n_group": 1, "topk_group": 1, "sliding_window": 8, "first_k_dense_replace": 1, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2, "conv_dim": (32,) * 7, "max_position_embeddings": 128, "n_positions": 128,
    "num_labels": 3, "codebook_size": 32, "num_codebooks": 2, "num_nextn_predict_layers": 0, "attention_dropout": 0.0,
    "num_channels": 3,
}  # fmt: skip


def shrink(config: Any) -> Any:
    """Make a configuration and all inside it small, in place."""
    given = config.__dict__
    before = {name: value for name, value in given.items() if name in SMALL}
    layers = next((before[name] for name in ("num_hidden_layers", "n_layer", "num_layers") if name in before), None)
    for name, value in list(given.items()):
        if hasattr(value, "to_dict") and hasattr(value, "__dict__"):
            shrink(value)
        elif name in SMALL and isinstance(value, int | tuple | list) and not isinstance(value, bool):
            if isinstance(value, list | tuple) and not isinstance(SMALL[name], tuple):
                setattr(config, name, type(value)([SMALL[name]] * len(value)))
            else:
                setattr(config, name, SMALL[name])
        elif name.endswith("_token_id") and isinstance(value, int) and value >= VOCABULARY:
            setattr(config, name, 1 + sum(map(ord, name)) % (VOCABULARY - 5))
        elif isinstance(value, list) and layers and len(value) == layers and name != "hidden_sizes":
            setattr(config, name, ends(value))
    for rope in (given.get("rope_parameters"), given.get("rope_scaling")):
        if isinstance(rope, dict) and "mrope_section" in rope:
            half = (given.get("head_dim") or WIDTH // HEADS) // 2
            rope["mrope_section"] = [half - 2 * (half // 3), half // 3, half // 3]
    if given.get("num_key_value_heads") is not None and before.get("num_key_value_heads") == before.get(
        "num_attention_heads"
    ):
        config.num_key_value_heads = HEADS
    return config


def ends(values: list[Any]) -> list[Any]:
    """One of each kind of layer, as far as there is room for them."""
    kinds = list(dict.fromkeys(map(str, values)))
    found = [next(value for value in values if str(value) == kind) for kind in kinds]
    return (found + values[-LAYERS:])[-LAYERS:] if len(found) < LAYERS else found[:LAYERS]


def inputs_for(model: Any, config: Any) -> list[dict[str, Any]]:
    """Inputs that the model's forward may take: text where it takes text, else pictures, films, sound or numbers."""
    torch.manual_seed(7)
    names = inspect.signature(model.forward).parameters
    needed = {name for name, p in names.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD} - {"self"}
    given: dict[str, Any] = {}
    attended = torch.ones(2, 11, dtype=torch.long)
    attended[1, 8:] = 0
    if "input_ids" in names:
        given["input_ids"] = torch.randint(3, 90, (2, 11))
        if "attention_mask" in names:
            given["attention_mask"] = attended
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in names:
        given["decoder_input_ids"] = torch.randint(3, 90, (2, 5))
    if "grid_thw" in needed or "image_grid_thw" in needed:
        grid = "grid_thw" if "grid_thw" in needed else "image_grid_thw"
        pixels = next((name for name in ("hidden_states", "pixel_values") if name in needed), "pixel_values")
        dim = channels(config) * find(config, ("patch_size",), PATCH) ** 2
        flat = {grid: torch.tensor([[1, 4, 4], [1, 4, 8]])}
        if "merge_sizes" in needed:
            flat["merge_sizes"] = torch.tensor([2, 2])
        deep = find(config, ("temporal_patch_size",), 1)
        return [flat | {pixels: torch.randn(48, dim * t)} for t in (deep, 1)]
    pictures = {"pixel_values": torch.randn(2, channels(config), size(config), size(config))}
    films = torch.randn(
        2, find(config, ("num_frames", "frames_per_clip"), 4), channels(config), size(config), size(config)
    )
    bins = find(config, ("num_mel_bins", "feature_size", "feature_projection_input_dim", "input_dim"), 16)
    tall, wide = torch.randn(2, bins, 80), torch.randn(2, 80, bins)
    choices: list[dict[str, Any]] = [given] if "input_ids" in given else []
    if "pixel_values" in names:
        choices += [given | pictures, pictures, given | {"pixel_values": films}]
    if "pixel_values_videos" in names:
        choices += [{"pixel_values_videos": films}]
    if "input_features" in names:
        heard = {"input_features_mask": torch.ones(2, 80).bool()} if "input_features_mask" in names else {}
        choices += [
            {name: x for name, x in given.items() if name != "input_ids"} | {"input_features": f} for f in (tall, wide)
        ]
        choices += [{"input_features": f} | heard for f in (tall, wide)]
    if "input_values" in names:
        choices += [{"input_values": torch.randn(sizes)} for sizes in ((2, 3840), (2, 1, 3840), (2, 128, bins))]
    if "past_values" in names:
        choices += [{"past_values": torch.randn(2, 32, find(config, ("num_input_channels",), 1))}]
    return choices or [given]


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


def size(config: Any) -> int:
    """The side of a picture for a model."""
    value = (
        getattr(config, "image_size", None)
        or getattr(getattr(config, "vision_config", None), "image_size", None)
        or IMAGE
    )
    return int(value[0] if isinstance(value, list | tuple) else value)


def channels(config: Any) -> int:
    """The channels of a picture for a model."""
    return int(getattr(config, "num_channels", 3) or 3)


def architectures() -> list[str]:
    """Every model type that transformers can build a base model of."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return sorted(MODEL_MAPPING_NAMES)


def arguments(model: Any) -> set[str]:
    """The names of the arguments of a model's forward."""
    return set(inspect.signature(model.forward).parameters)


def configured(kind: str) -> Any:
    """The small configuration of a type."""
    import transformers

    config = shrink(transformers.CONFIG_MAPPING[kind]())
    if getattr(config, "use_repmixer_blocks", False):
        config.num_hidden_layers = LAYERS + 1  # its first and its last block are convolutions
    return config


def build(kind: str, how: str) -> tuple[Any, dict[str, Any]]:
    """The tiny model of a type, with attention computed in some way, and the first input that it runs on."""
    import transformers

    return made(transformers.AutoModel, configured(kind), how)


def build_head(kind: str, how: str) -> tuple[Any, dict[str, Any]]:
    """The same with its language head."""
    import transformers

    config = configured(kind)
    for name in ("CausalLM", "Seq2SeqLM", "SpeechSeq2Seq", "ImageTextToText", "MaskedLM"):
        factory = getattr(transformers, f"AutoModelFor{name}")
        if type(config) in factory._model_mapping:
            return made(factory, config, how)
    raise LookupError(f"{kind} has no language head")


def made(factory: Any, config: Any, how: str) -> tuple[Any, dict[str, Any]]:
    """A model that some class of transformers makes, and the first input that it runs on."""
    torch.manual_seed(11)
    with torch.no_grad():
        model = factory.from_config(config, attn_implementation=how, dtype=torch.float32).eval()
        problem: Exception | None = None
        for inputs in inputs_for(model, config):
            try:
                model(**inputs)
            except Exception as error:  # noqa: BLE001 - whatever a model says to an input that it does not take
                problem = problem or error
            else:
                return model, inputs
    raise RuntimeError(f"no input fits: {type(problem).__name__}: {problem}")
