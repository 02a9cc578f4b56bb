"""A model that goes on with a text by itself, recorded at every step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headscope.errors import HeadscopeError, ModelError

if TYPE_CHECKING:
    from headscope.hf.models import Loaded
    from headscope.look.axis import Axis

GENERATE = "Let the model go on for N tokens, greedily, and record every step; the page has a slider over them."


def able(loaded: Loaded) -> Loaded:
    """The same model with the part that predicts tokens.

    Raises:
        ModelError: the model has none, or its files have no weights for it.
    """
    import transformers

    if loaded.processor is not None and loaded.tokenizer is not None and loaded.model.can_generate():
        return loaded  # the whole model that was saved, which reads pictures and text together
    config = loaded.model.config
    kinds = ("Seq2SeqLM", "SpeechSeq2Seq") if config.is_encoder_decoder else ("CausalLM",)
    for kind in kinds:
        loads: Any = getattr(transformers, f"AutoModelFor{kind}")
        if type(config) not in loads._model_mapping:
            continue
        model, report = loads.from_pretrained(
            config.name_or_path,
            attn_implementation="sdpa",
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        if model.can_generate() and not report["missing_keys"]:
            return replace(loaded, model=model.eval(), absent=())
    raise ModelError(
        f"--generate: model {loaded.name!r} predicts no tokens; give one that does, such as openai-community/gpt2, or "
        "leave --generate out."
    )


def generate(loaded: Loaded, inputs: dict[str, Any], count: int) -> list[int]:
    """Let a model go on for `count` tokens; all ids that its decoder has read or made.

    Raises:
        HeadscopeError: there is no room for so many tokens, or the model fails on this input.
    """
    import torch

    from headscope.hf.models import first_line

    given = {name: x for name, x in inputs.items() if not name.startswith("decoder_")}
    ids = given.get("input_ids")
    if ids is not None and not loaded.model.config.is_encoder_decoder and loaded.limit is not None:
        room = loaded.limit - ids.shape[1]
        if count > room:
            raise HeadscopeError(
                f"--generate {count}: {loaded.name} takes {loaded.limit} tokens and the text has {ids.shape[1]}; "
                f"there is room for {max(0, room)}."
            )
    going_on: Any = loaded.model.generate
    try:
        with torch.no_grad():
            made = going_on(**given, max_new_tokens=count, do_sample=False, num_beams=1)
    except Exception as error:  # the code of any model
        raise ModelError(f"--generate: model {loaded.name!r} fails on this input: {first_line(error)}") from error
    return list(map(int, made[0].tolist()))


def generated(loaded: Loaded, ids: list[int], asked: int) -> tuple[Axis, list[str]]:
    """The tokens that the decoder read, and what it made at each of its steps; the last one it made it did not read.

    Args:
        ids: what it was asked with, and what it made.
        asked: how many tokens it was asked with.
    """
    from headscope.hf.vocabulary import ids_axis

    axis = ids_axis(ids, loaded.tokenizer)
    return axis.select(range(len(ids) - 1)), list(axis.labels[asked:])
