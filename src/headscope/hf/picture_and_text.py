"""A picture and a text together -> what a model that reads both is called with."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headscope.errors import HeadscopeError, ModelError
from headscope.hf.media import raw
from headscope.hf.models import Loaded, first_line


def together_inputs(loaded: Loaded, path: Path, text: str) -> dict[str, Tensor]:
    """The keyword arguments of a model for the picture in a file and a text.

    The model's own processor makes them: CLIP and ViLT read both as they are, models that talk about a picture (LLaVA,
    Qwen-VL) get a question in the form of their chat template, or after the token that stands for the picture.

    Args:
        loaded: of `load(name, together=True)`.

    Raises:
        ModelError: the model does not read both together, or its processor fails on them.
    """
    processor = loaded.processor
    if loaded.tokenizer is None or not reads_pictures(processor):
        raise ModelError(
            f"model {loaded.name!r} does not read a picture and a text together: it has no processor for both; give "
            "one that does, such as a CLIP, BLIP or LLaVA, or the picture or the text alone."
        )
    try:
        prompt = prompt_of(processor, text)
        found = processor(text=prompt, **raw(path, "picture", loaded), return_tensors="pt")
    except HeadscopeError:
        raise
    except Exception as error:  # the code of any processor, and damaged files
        raise ModelError(
            f"model {loaded.name!r}: its processor fails on the picture {path} with this text: {first_line(error)}"
        ) from error
    taken = inspect.signature(loaded.model.forward).parameters
    inputs = {name: x for name, x in found.items() if isinstance(x, Tensor) and name in taken}
    if "decoder_input_ids" in taken and "decoder_input_ids" not in inputs:
        inputs["decoder_input_ids"] = torch.tensor([[start_of(loaded.model)]])
    return inputs


def reads_pictures(processor: Any) -> bool:
    """Whether a processor has a part for pictures."""
    return getattr(processor, "image_processor", None) is not None


def prompt_of(processor: Any, text: str) -> str:
    """A text as a model expects it beside one picture.

    With the token that stands for the picture in front of it where the processor has one and the text does not, unless
    the processor makes a fixed number of them itself (BLIP-2).
    """
    if getattr(processor, "chat_template", None):
        said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        return str(processor.apply_chat_template(said, add_generation_prompt=True))
    token = getattr(processor, "image_token", None)
    if token is None or str(token) in text or getattr(processor, "num_query_tokens", None) is not None:
        return text
    return f"{token}\n{text}"


def start_of(model: Any) -> int:
    """The token that a decoder begins with."""
    places = (model, model.config, model.config.get_text_config())
    names = ("decoder_start_token_id", "bos_token_id", "pad_token_id")
    found = (getattr(place, name, None) for name in names for place in places)
    return next((number for number in found if isinstance(number, int)), 0)
