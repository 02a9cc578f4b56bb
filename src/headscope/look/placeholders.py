"""Tokens that stand for a piece of a picture, a film or a sound within a text: content, but no text."""

from __future__ import annotations

import functools
import re

import torch
from jaxtyping import Bool
from torch import Tensor

from headscope.look.axis import Axis

# How the tokenizers of models that read more than text write them: <image>, <|image_pad|>, <image_soft_token>,
# <IMG_CONTEXT>, <|image_1|>, <|patch|>, [IMG], <|AUDIO|>, [AUDIO].
PLACEHOLDER = re.compile(
    r"<\|?(image|img|im|video|audio|sound|speech|patch)(_pad|_patch|_soft_token|_context|_token|_\d+)?\|?>"
    r"|\[(IMG|AUDIO)\]",
    re.IGNORECASE,
)


@functools.lru_cache(64)  # all heads of a layer, and mostly of a model, have the same axes
def placeholders(axis: Axis) -> Bool[Tensor, " n"]:
    """Which tokens of an axis stand for a piece of a picture or a sound; none where the positions are no tokens.

    What is true of equal words is not true of them: hundreds of equal `<image>` tokens are hundreds of patches.

    Example:
        >>> placeholders(Axis.tokens(["see", "<image>", "<image>", "image"])).tolist()
        [False, True, True, False]
    """
    found = [axis.kind == "tokens" and PLACEHOLDER.fullmatch(label) is not None for label in axis.labels]
    return torch.tensor(found, dtype=torch.bool)
