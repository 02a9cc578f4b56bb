"""A picture or a sound in a file -> what a model that reads them is called with."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headscope.errors import MissingExtra, ModelError
from headscope.hf.models import Loaded, first_line

# The longest sound and the largest picture that are read: an hour at 48 kHz in stereo, and 100 megapixels.
MOST_FRAMES, MOST_PIXELS = 48_000 * 3600, 10**8
# What models call the input that is made of a picture, and of a sound.
READS = {"picture": ("pixel_values",), "sound": ("input_values", "input_features")}


def media_inputs(loaded: Loaded, path: Path, what: str) -> dict[str, Tensor]:
    """The keyword arguments of a model for a file.

    Args:
        what: "picture" or "sound".

    Raises:
        ModelError: the model does not read such files, or the file is damaged.
    """
    reads = loaded.model.main_input_name
    if reads not in READS[what] or loaded.processor is None:
        if what == "picture" and getattr(loaded.model.config, "vision_config", None) is not None:
            raise ModelError(
                f"{path}: model {loaded.name!r} reads a picture and a text together; give the text, too: "
                f"headscope view {path} TEXT --model {loaded.name}"
            )
        raise ModelError(
            f"{path}: this is a {what}, and model {loaded.name!r} reads {'text' if reads == 'input_ids' else reads}; "
            f"give a model of {what}s with --model, or a text."
        )
    try:
        found = loaded.processor(**raw(path, what, loaded), return_tensors="pt")
    except (OSError, ValueError, EOFError, SyntaxError, wave.Error) as error:
        raise ModelError(f"{path}: this {what} cannot be read: {first_line(error)} Give another file.") from error
    inputs = dict(found)
    if loaded.model.config.is_encoder_decoder:
        config = loaded.model.config
        start = getattr(config, "decoder_start_token_id", None) or 0
        inputs["decoder_input_ids"] = torch.tensor([[start]])
    return inputs


def raw(path: Path, what: str, loaded: Loaded) -> dict[str, Any]:
    """The arguments of a processor: the pixels of a picture, or the samples of a sound."""
    if what == "sound":
        rate = int(getattr(loaded.processor, "sampling_rate", 16_000))
        return {"raw_speech": samples(path, rate), "sampling_rate": rate}
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra(f"{path}: pictures are read with Pillow: pip install pillow") from None
    with Image.open(path) as picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(f"it has {picture.width} x {picture.height} pixels, and may have {MOST_PIXELS}")
        return {"images": picture.convert("RGB")}


def samples(path: Path, rate: int) -> np.ndarray:
    """The sound of a WAV file as one channel of numbers from -1 to 1, at a rate.

    Raises:
        ModelError: another format of sound.
    """
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            raise ModelError(f"{path}: of sounds, WAV is read; convert it, for example: ffmpeg -i FILE sound.wav")
    with wave.open(str(path), "rb") as sound:
        width, channels, own = sound.getsampwidth(), sound.getnchannels(), sound.getframerate()
        if sound.getnframes() > MOST_FRAMES:
            raise ValueError(f"it has {sound.getnframes()} frames, and may have {MOST_FRAMES}")
        content = np.frombuffer(sound.readframes(sound.getnframes()), np.uint8)
    content = content[: len(content) // (width * channels) * width * channels]
    if width == 1:
        numbers = (content.astype(np.float32) - 128) / 128
    else:
        # Each number is put at the upper end of 32 bits.
        wide = np.zeros((len(content) // width, 4), np.uint8)
        wide[:, 4 - width :] = content.reshape(-1, width)
        numbers = wide.view("<i4")[:, 0].astype(np.float32) / 2**31
    mono = torch.from_numpy(numbers).view(-1, channels).mean(1)
    if own != rate and len(mono):
        count = max(1, round(len(mono) * rate / own))
        mono = torch.nn.functional.interpolate(mono[None, None], size=count, mode="linear", antialias=False)[0, 0]
    return np.asarray(mono)
