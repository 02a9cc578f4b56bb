"""Text -> what a model is called with, and what its positions are."""

from __future__ import annotations

import inspect
import traceback
from dataclasses import dataclass

import torch
from torch import Tensor

from headscope.errors import HeadscopeError, ModelError
from headscope.hf.axes import token_axis
from headscope.hf.models import Loaded, first_line
from headscope.look.axis import Axis


@dataclass(frozen=True)
class Encoded:
    """One text as a model takes it.

    Attributes:
        inputs: the keyword arguments of the model; a batch of one.
        axis: the tokens of the text; in an encoder-decoder model the positions of the encoder.
        decoder: the positions of the decoder, where there is one.
        cut: how many tokens at the end of the text were left out because the model takes no more.
    """

    inputs: dict[str, Tensor]
    axis: Axis
    decoder: Axis | None = None
    cut: int = 0


def encode(loaded: Loaded, text: str, pair: str | None = None) -> Encoded:
    """One text, or a pair of texts, for a model.

    A text that is longer than the model takes is cut at its end, and `cut` says by how many tokens. A pair goes in as
    two segments; in an encoder-decoder model the second text is what the decoder is fed, after its start token.

    Raises:
        ModelError: the model does not read text, or the text has no tokens.

    Example:
        >>> from headscope.hf.models import load
        >>> encode(load(), "Cats sleep.").axis.labels
        ('[CLS]', 'Cats', 'sleep', '.', '[SEP]')
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    if model.main_input_name != "input_ids":
        raise ModelError(
            f"model {loaded.name!r} reads {model.main_input_name}, not text; give a model that reads text, or a file "
            "that it reads."
        )
    texts = (text,) if pair is None or model.config.is_encoder_decoder else (text, pair)
    whole = tokenizer(*texts, return_tensors="pt", verbose=False)
    length = whole["input_ids"].shape[1]
    cut = max(0, length - (loaded.limit or length))
    if cut:
        whole = tokenizer(*texts, return_tensors="pt", truncation=True, max_length=loaded.limit)
    axis = token_axis(tokenizer, whole, texts if len(texts) == 2 else text)
    if all(axis.special):
        raise ModelError(
            f"model {loaded.name!r}: its tokenizer finds no token in the text {text[:40]!r}; give other text."
        )
    taken = inspect.signature(model.forward).parameters
    inputs = {name: tensor for name, tensor in whole.items() if name in taken}
    if not model.config.is_encoder_decoder:
        return Encoded(inputs, axis, cut=cut)
    inputs["decoder_input_ids"], decoder = _decoder(loaded, pair)
    return Encoded(inputs, axis, decoder, cut)


def run(loaded: Loaded, encoded: Encoded) -> None:
    """The model's forward pass, without gradients; its outputs are not kept.

    Raises:
        ModelError: the model fails on this input.
    """
    run_inputs(loaded, encoded.inputs, "text")


def run_inputs(loaded: Loaded, inputs: dict[str, Tensor], what: str) -> None:
    """The forward pass on a text, a picture or a sound."""
    try:
        with torch.no_grad():
            loaded.model(**inputs)
    except HeadscopeError:
        raise
    except Exception as error:  # the code of any model; a fault in our own is not the model's
        if _raised_by(error).startswith("headscope."):
            raise
        raise ModelError(
            f"model {loaded.name!r} fails on this {what}: {first_line(error)} Give a model that runs on {what} alone."
        ) from error


def _raised_by(error: Exception) -> str:
    """The name of the module whose code raised an error."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", ""))


def _decoder(loaded: Loaded, text: str | None) -> tuple[Tensor, Axis]:
    """What a decoder is fed: its start token, then the text shifted to the right by it."""
    tokenizer, config = loaded.tokenizer, loaded.model.config
    known = (getattr(config, name, None) for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"))
    start = next((number for number in known if number is not None), 0)
    name = str(tokenizer.convert_ids_to_tokens(start))
    if not text:
        return torch.tensor([[start]]), Axis.tokens([name], ids=[start], special=[True])
    encoding = tokenizer(text_target=text, verbose=False, truncation=loaded.limit is not None, max_length=loaded.limit)
    axis = token_axis(tokenizer, encoding, text)
    # The last token, the end of the text, is what the decoder says; it is not what it reads.
    keep = range(axis.length - 1) if axis.ids and axis.ids[-1] == tokenizer.eos_token_id else range(axis.length)
    axis = axis.select(keep)
    ids = [start, *(axis.ids or ())]
    shifted = Axis.tokens(
        [name, *axis.labels], ids=ids, spans=[None, *(axis.spans or ())], special=[True, *axis.special]
    )
    return torch.tensor([ids]), shifted
