"""A tiny random model of every architecture in transformers, built from its configuration alone, and an input for "
"it."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import torch

from tests.families.inputs import inputs_for
from tests.families.shrink import shrink
from tests.families.special_configs import CLASSES, adapt
from tests.families.special_inputs import INPUTS


class NoInput(RuntimeError):
    """A model was built, and runs on none of the inputs that are made for it."""


def reason(error: BaseException) -> BaseException:
    """What a model said to the last input that was tried, where none fits; else the error itself."""
    while isinstance(error, NoInput) and isinstance(error.__cause__, ExceptionGroup):
        error = error.__cause__.exceptions[-1]
    return error


def architectures() -> list[str]:
    """Every model type that transformers can build a base model of."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return sorted(MODEL_MAPPING_NAMES)


def without_sdpa(kind: str) -> bool:
    """Whether transformers has no sdpa for the model of a type."""
    import transformers

    try:
        model = transformers.AutoModel._model_mapping[transformers.CONFIG_MAPPING[kind]]
    except (KeyError, ValueError, ImportError):
        return False
    # A class that stands in for one whose library is missing has no attributes at all.
    return not any(getattr(one, "_supports_sdpa", True) for one in (model if isinstance(model, tuple) else (model,)))


def arguments(model: Any) -> set[str]:
    """The names of the arguments of a model's forward."""
    return set(inspect.signature(model.forward).parameters)


def configured(kind: str) -> Any:
    """The small configuration of a type."""
    import transformers

    return adapt(shrink(transformers.CONFIG_MAPPING[kind]()))


def build(kind: str, how: str) -> tuple[Any, dict[str, Any]]:
    """The tiny model of a type, with attention computed in some way, and the first input that it runs on."""
    import transformers

    if kind in CLASSES:
        return made(getattr(transformers, CLASSES[kind])._from_config, kind, how)
    return made(transformers.AutoModel.from_config, kind, how)


def build_head(kind: str, how: str) -> tuple[Any, dict[str, Any]]:
    """The same with its language head."""
    import transformers

    config = configured(kind)
    for name in ("ImageTextToText", "CausalLM", "Seq2SeqLM", "SpeechSeq2Seq", "MaskedLM"):
        factory = getattr(transformers, f"AutoModelFor{name}")
        if type(config) in factory._model_mapping:
            return made(factory.from_config, kind, how)
    raise LookupError(f"{kind} has no language head")


def parts(config: Any, how: str) -> str | dict[str, str]:
    """How a model attends, and how its parts do: eager, where a part knows nothing else."""
    found = {"": how}
    for name, part in config.__dict__.items():
        if hasattr(part, "to_dict") and hasattr(part, "__dict__"):
            found[name] = "eager" if any(not model._supports_sdpa for model in models(part)) else how
    return found if "eager" in found.values() else how


def models(config: Any) -> list[Any]:
    """The models that transformers may make of a configuration that is a part of another."""
    from transformers.models.auto import modeling_auto

    found = []
    for name in ("MODEL_MAPPING", "MODEL_FOR_BACKBONE_MAPPING", "MODEL_FOR_KEYPOINT_DETECTION_MAPPING"):
        with contextlib.suppress(KeyError, ValueError):  # types that no class was written for
            made = getattr(modeling_auto, name)[type(config)]
            found += made if isinstance(made, tuple) else [made]
    return found


def made(make: Any, kind: str, how: str) -> tuple[Any, dict[str, Any]]:
    """A model that some class of transformers makes, and the first input that it runs on."""
    config = configured(kind)
    torch.manual_seed(11)
    with torch.no_grad():
        model = make(config, attn_implementation=parts(config, how), dtype=torch.float32).eval()
        problems: list[Exception] = []
        torch.manual_seed(7)
        for inputs in [INPUTS[kind](config)] if kind in INPUTS else inputs_for(model, config, problems):
            try:
                model(**inputs)
            except Exception as error:  # noqa: BLE001 - whatever a model raises for an input that it does not take
                problems.append(error)
            else:
                return model, inputs
    raise NoInput("no input fits") from ExceptionGroup("what it raised for each input", problems)
