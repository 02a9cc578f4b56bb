"""How many labels are shown beside a map."""

from __future__ import annotations

import re

from headscope.characters import ELLIPSIS, sentence, shortened, visible

__all__ = ["ELLIPSIS", "every", "model_name", "sentence", "shortened", "visible"]
# Folders within a model's path that say nothing: a revision in the cache of the Hub, and what every model has.
NAMELESS = re.compile(r"[0-9a-f]{40}|snapshots?|models?|weights|checkpoint|hub|\.?", re.IGNORECASE)
CACHED = re.compile(r"models--(.+)")
IN_BRACKETS = re.compile(r"\w+ \((.*[/\\].*)\)")  # a recording says "BertModel (where it came from)"


def model_name(name: str) -> str:
    """What a model is called in a title: its name on the Hub, or of a path the part that names it.

    Example:
        >>> model_name("/home/me/.cache/huggingface/hub/models--openai--whisper-tiny/snapshots/" + 40 * "a")
        'openai/whisper-tiny'
        >>> model_name("openai/whisper-tiny"), model_name("/data/runs/17/model"), model_name("C:\\\\models\\\\bert")
        ('openai/whisper-tiny', '17', 'bert')
        >>> model_name("BertModel (/opt/models/minilm/model)"), model_name("GPT2LMHeadModel")
        ('minilm', 'GPT2LMHeadModel')
    """
    if named := IN_BRACKETS.fullmatch(name):
        return model_name(named[1])
    parts = [part for part in re.split(r"[/\\]", name) if part]
    cached = next((found for part in parts if (found := CACHED.fullmatch(part))), None)
    if cached:
        return cached[1].replace("--", "/")
    if len(parts) <= 2 and not name.startswith(("/", "\\", "~", ".")) and ":" not in name:
        return name
    return next((part for part in reversed(parts) if not NAMELESS.fullmatch(part)), name)


def every(count: int, fit: int) -> int:
    """Label every how many-th of `count` positions, when `fit` labels fit: 1, 2, 5, 10, 20, 50, …

    Example:
        >>> every(12, 40), every(512, 40)
        (1, 20)
    """
    step, factors = 1, (2.0, 2.5, 2.0)
    turn = 0
    while count > step * max(1, fit):
        step = int(step * factors[turn % 3])
        turn += 1
    return step
