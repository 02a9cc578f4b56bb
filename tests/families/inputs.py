"""Inputs for a model, made from its configuration and the arguments of its forward: text, pictures, films, sound, "
"numbers."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tests.families.shrink import FIRST_SPECIAL, IMAGE, PATCH, find

Inputs = dict[str, Any]
WORDS, FRAMES = 11, 80


def inputs_for(model: Any, config: Any, problems: list[Exception]) -> list[Inputs]:
    """What a model may take, best first: all it sees and hears with its text, one thing with text, one thing alone.

    What the parts of the model raised for pictures and sounds that they do not take is added to `problems`.
    """
    torch.manual_seed(7)
    parameters = inspect.signature(model.forward).parameters
    names = set(parameters)
    needed = {name for name, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD} - {"self"}
    text = words(names, config)
    seen, heard = pictures(names, needed, config), sounds(names, config)
    choices: list[Inputs] = []
    if "input_ids" in names:
        images = placed(model, config, "image", seen, text, names, problems)
        both = [x for image in images for x in placed(model, config, "audio", heard, image, names, problems)]
        choices += both + images + placed(model, config, "audio", heard, text, names, problems)
        choices += [text] if not {"pixel_values", "input_values", "input_features"} & needed else []
    choices += [text | picture for picture in seen] + seen
    silent = {name: x for name, x in text.items() if name not in ("input_ids", "attention_mask")}
    choices += [silent | sound for sound in heard]
    if "past_values" in names:
        choices += [{"past_values": torch.randn(2, 32, find(config, ("num_input_channels",), 1))}]
    return choices or [text]


def words(names: set[str], config: Any) -> Inputs:
    """A text of two lines, the second of which is padded, and what an encoder-decoder has said so far."""
    given: Inputs = {}
    if "input_ids" in names:
        given["input_ids"] = torch.randint(3, FIRST_SPECIAL, (2, WORDS))
        if "attention_mask" in names:
            given["attention_mask"] = torch.ones(2, WORDS, dtype=torch.long)
            given["attention_mask"][1, 8:] = 0
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in names:
        given["decoder_input_ids"] = torch.randint(3, FIRST_SPECIAL, (2, 5))
    return given


def pictures(names: set[str], needed: set[str], config: Any) -> list[Inputs]:
    """Two pictures: as squares in a row with the grid that they form, as planes, or as films."""
    found: list[Inputs] = []
    side, planes = size(config), channels(config)
    grid = next((name for name in ("grid_thw", "image_grid_thw", "grid_hws", "image_grid_hws") if name in names), None)
    pixels = next((name for name in ("pixel_values", "hidden_states") if name in needed | names), None)
    if grid and pixels:
        dim = planes * find(config, ("patch_size",), PATCH) ** 2
        for deep in dict.fromkeys((find(config, ("temporal_patch_size", "temporal_patch"), 1), 2, 1)):
            flat: Inputs = {grid: torch.tensor([[1, 4, 4], [1, 4, 4]]), pixels: torch.randn(32, dim * deep)}
            if "merge_sizes" in needed:
                flat["merge_sizes"] = torch.tensor([2, 2])
            found.append(flat)
        patch = find(config, ("patch_size",), PATCH)
        found.append({grid: torch.tensor([[1, 4, 4], [1, 4, 4]]), pixels: torch.randn(32, planes, patch, patch)})
    if "spatial_shapes" in names:
        dim = planes * find(config, ("patch_size",), PATCH) ** 2
        shapes: Inputs = {"pixel_values": torch.randn(2, 16, dim), "spatial_shapes": torch.tensor([[4, 4], [4, 4]])}
        found.append(shapes | {"pixel_attention_mask": torch.ones(2, 16, dtype=torch.long)})
    if "pixel_values" in names:
        sizes = {"image_sizes": torch.tensor([[side, side]] * 2)} if "image_sizes" in names else {}
        found += [more | {"pixel_values": torch.randn(2, planes, side, side)} for more in (sizes, {})]
        if "pixel_attention_mask" in names:
            seen = torch.ones(2, 1, side, side, dtype=torch.bool)
            found.append({"pixel_values": torch.randn(2, 1, planes, side, side), "pixel_attention_mask": seen})
        films = dict.fromkeys((find(config, ("num_frames", "frames_per_clip"), 4), 2))
        found += [sizes | {"pixel_values": torch.randn(2, film, planes, side, side)} for film in films]
    elif "pixel_values_videos" in names:
        film = find(config, ("num_frames", "frames_per_clip"), 4)
        found.append({"pixel_values_videos": torch.randn(2, film, planes, side, side)})
    return found


def sounds(names: set[str], config: Any) -> list[Inputs]:
    """Two sounds: as a spectrogram, lying or standing, or as a wave."""
    found: list[Inputs] = []
    bins = find(config, ("num_mel_bins", "feature_size", "feature_projection_input_dim", "input_dim", "n_mels"), 16)
    if "input_features" in names:
        masks = [name for name in ("input_features_mask", "feature_attention_mask") if name in names]
        real = {name: torch.ones(2, FRAMES, dtype=torch.long) for name in masks}
        shapes = (2, bins, FRAMES), (2, FRAMES, bins)
        found += [{"input_features": torch.randn(shape)} | mask for shape in shapes for mask in ({}, real)]
    if "input_values" in names:
        found += [{"input_values": torch.randn(shape)} for shape in ((2, 3840), (2, 1, 3840), (2, 128, bins))]
    return found


def placed(
    model: Any,
    config: Any,
    kind: str,
    given: list[Inputs],
    text: Inputs,
    names: set[str],
    problems: list[Exception],
) -> list[Inputs]:
    """A text with places in it for what is seen or heard: as many as the model makes vectors of it."""
    ids = (f"{kind}_token_id", f"{kind}_token_index", "media_placeholder_token_id")
    token = next((x for x in (getattr(config, name, None) for name in ids) if isinstance(x, int)), None)
    features = getattr(model, f"get_{kind}_features", None) or getattr(
        getattr(model, "model", None), f"get_{kind}_features", None
    )
    if token is None or features is None:
        return []
    found = []
    taken = inspect.signature(features).parameters
    for one in given:
        try:
            vectors = counted(features(**{name: x for name, x in one.items() if name in taken}), model)
        except Exception as error:  # noqa: BLE001 - whatever a part of a model raises for what it does not take
            problems.append(error)
            continue
        if vectors and vectors % 2 == 0:
            found.append(text | one | spliced(text, token, vectors // 2, 1 + (kind == "audio") * 2, names))
    return found


def counted(features: Any, model: Any) -> int:
    """How many vectors of the width of a word are in what a model made of pictures or sounds."""
    width = model.get_input_embeddings().weight.shape[1]
    handed = [getattr(features, name, None) for name in ("pooler_output", "last_hidden_state")]
    found = next((x for x in handed if x is not None), features)
    tensors = [x for x in tree_leaves(found) if isinstance(x, Tensor) and x.is_floating_point()]
    numbers = sum(x.numel() for x in tensors)
    return numbers // width


def spliced(text: Inputs, token: int, places: int, role: int, names: set[str]) -> Inputs:
    """The text with a row of places after its third word."""
    ids = text["input_ids"]
    row = torch.full((ids.shape[0], places), token)
    found: Inputs = {"input_ids": torch.cat((ids[:, :3], row, ids[:, 3:]), 1)}
    if "attention_mask" in text:
        real = text["attention_mask"]
        found["attention_mask"] = torch.cat((real[:, :3], torch.ones_like(row), real[:, 3:]), 1)
    if "mm_token_type_ids" in names:
        before = text.get("mm_token_type_ids", torch.zeros_like(ids))
        found["mm_token_type_ids"] = torch.cat((before[:, :3], torch.full_like(row, role), before[:, 3:]), 1)
    return found


def size(config: Any) -> int:
    """The side of a picture for a model."""
    vision = getattr(config, "vision_config", None)
    value = getattr(config, "image_size", None) or getattr(vision, "image_size", None) or IMAGE
    return int(value[0] if isinstance(value, list | tuple) else value)


def channels(config: Any) -> int:
    """The channels of a picture for a model."""
    return int(getattr(config, "num_channels", 3) or 3)
