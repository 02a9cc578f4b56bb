"""Pixels -> Axis: the patches of a picture, after the class, distillation and register tokens of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from headscope.look.axis import Axis

# What models call the tokens that they put before the patches, in the order in which they stand there.
BEFORE = {
    "cls_token": "[CLS]",
    "class_token": "[CLS]",
    "class_embedding": "[CLS]",
    "cls_embedding": "[CLS]",
    "distillation_token": "[DIST]",
    "dist_token": "[DIST]",
    "register_tokens": "[REG]",
    "reg_token": "[REG]",
}


def patch_axis(module: nn.Module, shape: Sequence[int], count: int) -> Axis | None:
    """The axis of `count` positions of a module that was given pixels `(batch, channels, height, width)`.

    The size of a patch is that of the module's config, or of its first convolution whose steps are as wide as itself.
    None where patches and named tokens do not come to `count`: a picture that was pooled, masked or cut into windows.

    Example:
        >>> patch_axis(nn.Sequential(nn.Conv2d(3, 5, 8, stride=8)), (1, 3, 16, 24), 6).grid
        (2, 3)
    """
    size = patch_size(module)
    if size is None or len(shape) != 4 or min(size) < 1:
        return None
    rows, columns = shape[2] // size[0], shape[3] // size[1]
    before = names_before(module)
    extra = count - rows * columns
    if rows * columns < 1 or extra not in (0, len(before)):
        return None
    return Axis.patches(rows, columns, before=before if extra else ())


def patch_size(module: nn.Module) -> tuple[int, int] | None:
    """The height and width of a patch in pixels."""
    config: Any = getattr(module, "config", None)
    for place in (config, getattr(config, "vision_config", None)):
        size = getattr(place, "patch_size", None)
        if isinstance(size, int):
            return size, size
        if isinstance(size, Sequence) and len(size) == 2 and all(isinstance(one, int) for one in size):
            return size[0], size[1]
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.kernel_size == part.stride and max(part.kernel_size) > 1:
            return part.kernel_size[0], part.kernel_size[1]
    return None


def names_before(module: nn.Module) -> list[str]:
    """The names of the tokens before the patches, as far as the module has parameters that are called like them."""
    found: dict[str, list[str]] = {}
    for name, parameter in module.named_parameters():
        label = BEFORE.get(name.rpartition(".")[2])
        if label is None or label in found:
            continue
        count = parameter.shape[-2] if parameter.ndim > 1 else 1
        several = count > 1 or label == "[REG]"
        found[label] = [f"{label[:-1]} {i}]" for i in range(1, count + 1)] if several else [label]
    order = dict.fromkeys(BEFORE.values())
    return [name for label in order for name in found.get(label, ())]
