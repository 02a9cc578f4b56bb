"""What tells a model which language to read and which to write: codes of languages, or a prefix of the source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headscope.errors import TrainingError
from headscope.train.tasks.from_source import FromSource
from headscope.train.tasks.task import Task

if TYPE_CHECKING:
    from headscope.train.settings import Settings

# Codes that an error lists at most.
LISTED = 6


def codes_of(tokenizer: Any) -> dict[str, int]:
    """The token id of each language code of a multilingual tokenizer (mBART, NLLB, M2M-100); empty for any other."""
    if not hasattr(tokenizer, "src_lang"):
        return {}
    known: Mapping[str, int] | None = getattr(tokenizer, "lang_code_to_id", None)
    if known:
        return dict(known)
    return {str(code): tokenizer.convert_tokens_to_ids(str(code)) for code in tokenizer.extra_special_tokens}


def refuse_languages(task: Task, settings: Settings) -> None:
    """Raise `TrainingError` where a task that reads no source was given a language or a prefix."""
    if isinstance(task, FromSource):
        return
    for option in ("prefix", "source_language", "target_language"):
        if getattr(settings, option) is not None:
            raise TrainingError(
                f"--{option.replace('_', '-')}: --task {task.name} does not write one text from another. Leave it out, "
                "or give --task summarise or translate."
            )


def prefix_of(name: str, config: Any, tokenizer: Any, task: Task, settings: Settings) -> str:
    """The text that stands before every source: the one that was asked for, or the one that the model's config names.

    The config of a T5 names the prefix of each task that it was trained for, in `task_specific_params`.

    Raises:
        TrainingError: languages were given, and the model knows neither codes nor a prefix for them.

    Example:
        >>> from pathlib import Path
        >>> from types import SimpleNamespace
        >>> from headscope.train.settings import Settings
        >>> from headscope.train.tasks.listing import task_named
        >>> known = {"translation_en_to_de": {"prefix": "translate English to German: "}}
        >>> settings = Settings(Path("x.csv"), Path("out"), source_language="en", target_language="de")
        >>> prefix_of("t5", SimpleNamespace(task_specific_params=known), None, task_named("translate"), settings)
        'translate English to German: '
    """
    if settings.prefix is not None or not isinstance(task, FromSource):
        return settings.prefix or ""
    params = getattr(config, "task_specific_params", None) or {}
    source, target = settings.source_language, settings.target_language
    key = "summarization" if task.name == "summarise" else f"translation_{source}_to_{target}"
    if key in params:
        return str(params[key].get("prefix") or "")
    if (source is not None or target is not None) and not codes_of(tokenizer):
        pairs = [name for name in params if name.startswith("translation_")]
        knows = f"; its config names {', '.join(pairs)}" if pairs else ""
        raise TrainingError(
            f"--source-language, --target-language: model {name!r} has no codes of languages{knows}. Leave them out, "
            "or name the task in words: --prefix 'translate English to German: '."
        )
    return ""


def set_languages(name: str, model: Any, tokenizer: Any, task: Task, settings: Settings) -> None:
    """Make a multilingual model read the source language and write the target language, here and when it is loaded.

    The code of the target stands where the tokenizer puts it: before a text (mBART-50, NLLB, M2M-100), so that
    generation is forced to begin with it; or behind its end (mBART), so that the decoder starts from it.

    Raises:
        TrainingError: the tokenizer has codes of languages, and none or an unknown one was given.
    """
    codes = codes_of(tokenizer)
    if not codes or not isinstance(task, FromSource):
        return
    source = settings.source_language
    target = settings.target_language or (source if task.name == "summarise" else None)
    for option, code in (("source", source), ("target", target)):
        if code not in codes:
            problem = "needs one" if code is None else f"knows no {code!r}"
            some = ", ".join(list(codes)[:LISTED])
            raise TrainingError(
                f"--{option}-language: model {name!r} {problem}; it knows {len(codes)} languages. Give a code of its "
                f"tokenizer, such as {some}."
            )
    tokenizer.src_lang, tokenizer.tgt_lang = source, target
    number = codes[str(target)]
    if tokenizer(text_target="a")["input_ids"][0] == number:
        model.generation_config.forced_bos_token_id = number
    else:
        model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = number
