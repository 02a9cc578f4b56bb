"""Pixels -> Axis: the patches of a picture, after the class, distillation and register tokens of the model.

Also the positions of a feature map that a backbone made of the picture, and the windows that one is cut into.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
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

# Halvings that a backbone makes of a picture's sides.
MOST_HALVINGS = 8


@dataclass(frozen=True)
class Windows:
    """A feature map that is filled up at its right and lower edge, shifted in a circle, and cut into square windows.

    Source: Liu et al. 2021 (Swin), section 3.2.
    """

    rows: int
    columns: int
    size: int
    shift: int = 0

    @property
    def count(self) -> int:
        """How many windows a picture has: each is a batch item of the attention call."""
        return math.ceil(self.rows / self.size) * math.ceil(self.columns / self.size)

    def axes(self) -> list[Axis]:
        """The positions of every window, by their places in the picture.

        Example:
            >>> Windows(4, 4, 2, shift=1).axes()[1].labels  # the last column lies beside the first one
            ('(1, 3)', '(1, 0)', '(2, 3)', '(2, 0)')
        """
        beyond = -1
        cells = torch.arange(self.rows * self.columns).view(self.rows, self.columns)
        right, below = -self.columns % self.size, -self.rows % self.size
        cells = torch.nn.functional.pad(cells, (0, right, 0, below), value=beyond)
        cells = cells.roll((-self.shift, -self.shift), (0, 1))
        down, along = (length // self.size for length in cells.shape)
        windows = cells.view(down, self.size, along, self.size).transpose(1, 2).reshape(down * along, -1).tolist()
        return [
            Axis.patches(self.rows, self.columns, cells=[None if cell == beyond else cell for cell in one])
            for one in windows
        ]


def step_of(module: nn.Module, shape: Sequence[int], rows: int, columns: int) -> int | None:
    """How many pixels of a picture `(batch, channels, height, width)` one position of a feature map stands for.

    A power of two, or the module's patches doubled again and again, until the map has so many rows and columns; None
    where no such step leads to them.

    Example:
        >>> step_of(nn.Identity(), (1, 3, 97, 64), 4, 2)
        32
    """
    size = patch_size(module)
    firsts = (1, size[0]) if size is not None and size[0] == size[1] else (1,)
    for step in (first << i for first in firsts for i in range(MOST_HALVINGS)):
        sides = [(length // step, -(-length // step)) for length in shape[2:]]
        if rows in sides[0] and columns in sides[1]:
            return step
    return None


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
