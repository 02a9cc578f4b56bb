"""What a running module was given that says what positions are: token ids, pixels, or sound."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from headscope.attention.known import known
from headscope.calls.modules import Running, parameters
from headscope.hf import miniatures
from headscope.hf.pictures import patch_axis, patch_size, step_of
from headscope.hf.sounds import frame_axis
from headscope.look.axis import Axis
from headscope.recording.axes.feature_maps import Around
from headscope.recording.axes.tokens import Side

What = Literal["ids", "pixels", "sound"]
# Whole numbers in two axes that are no token ids have one of these in their names.
NO_IDS = ("mask", "position", "type", "segment", "label", "length", "ind", "cache", "bbox", "size", "grid", "lang")
SOUNDS = ("input_features", "input_values")


@dataclass(frozen=True, eq=False)
class InputArgument:
    """One argument of a running module that says what positions are.

    Attributes:
        ids: `(batch, positions)`, where these are tokens.
        hidden: true where a mask beside the input hides it: `(batch, positions)` of ids, `(batch, height, width)` of
            pixels.
        side: whose positions these are in a model with an encoder and a decoder, where that is known.
        content: the first pictures or sounds of the batch, for miniatures; None where their numbers are not known.
    """

    what: What
    name: str
    module: nn.Module
    shape: tuple[int, ...]
    side: Side | None
    ids: Tensor | None = None
    hidden: Tensor | None = None
    content: Tensor | None = None
    pictures: dict[tuple[tuple[int, int], int], bytes | None] = field(default_factory=dict, repr=False)

    def fits(self, items: int, count: int, around: Around) -> bool:
        """Whether these are inputs of that many items and positions; a beam search repeats the items."""
        if self.what == "ids":
            return items % max(self.shape[0], 1) == 0 and self.shape[1] == count
        return self.axis(items, count, around) is not None

    def axis(self, items: int, count: int, around: Around) -> list[Axis] | None:
        """The axes of the items of a call that belong to one picture or sound, without a miniature.

        One for each window that a picture is cut into; else one, the same for all.
        """
        if items % max(self.shape[0], 1):
            return None
        if self.what == "sound":
            frames = frame_axis(self.module, self.name, self.shape, count)
            return None if frames is None else [frames]
        if self.what != "pixels" or len(self.shape) != 4:
            return None
        windows = around.windows
        if windows is not None and items == self.shape[0] * windows.count:
            return windows.axes()
        patches = patch_axis(self.module, self.shape, count)
        if patches is not None:
            return [patches]
        found = around.map_of(count)
        # A map comes from the picture where steps of some size lead from the one to the other.
        return None if found is None or self.step(found) is None else [Axis.patches(*found)]

    def step(self, grid: tuple[int, int]) -> int | None:
        """How many pixels a patch of a grid stands for."""
        return step_of(self.module, self.shape, *grid)

    def axes(self, count: int, items: int, around: Around) -> list[Axis] | None:
        """The axis of each item, with its miniature."""
        found = self.axis(items, count, around)
        if found is None:
            return None
        shown = [self._shown(axis, number) for number in range(self.shape[0]) for axis in found]
        return [shown[i * len(shown) // items] for i in range(items)]

    def _shown(self, axis: Axis, number: int) -> Axis:
        """The axis of one picture or sound with its miniature, and of a map with what a mask hides in it."""
        content = None if self.content is None or number >= len(self.content) else self.content[number]
        grid = axis.grid
        if grid is None:
            return axis if content is None else miniatures.of_axis(axis, content)
        if content is not None:
            axis = replace(axis, thumbnail=self._picture(grid, number))
        if self.hidden is None or axis.cells is not None or axis.length != math.prod(grid):
            return axis
        # As models with a backbone make the mask of a map of that of the pixels.
        small = nn.functional.interpolate(self.hidden[number][None, None].float(), size=grid)
        hidden = tuple(small.flatten().bool().tolist())
        return replace(axis, special=hidden, padding=hidden) if any(hidden) else axis

    def _picture(self, grid: tuple[int, int], number: int) -> bytes | None:
        """The part of a picture that a grid covers; made once for all windows of it."""
        key = (grid, number)
        if key not in self.pictures:
            assert self.content is not None
            size, step = patch_size(self.module), self.step(grid)
            step_down, step_along = (step, step) if step is not None else size or (0, 0)
            covered = grid[0] * step_down / self.shape[2] or 1.0, grid[1] * step_along / self.shape[3] or 1.0
            self.pictures[key] = miniatures.picture(self.content[number], covered)
        return self.pictures[key]


def input_arguments(frame: Running) -> list[InputArgument]:
    """What a running module was given that says what positions are."""
    names = parameters(cast(Any, type(frame.module)))[1:] if frame.args else ()
    arguments = [*zip(names, frame.args, strict=False), *frame.kwargs.items()]
    found = []
    for name, x in arguments:
        what = what_is(name, x)
        if what is None:
            continue
        side = side_of_argument(frame, name)
        if what != "ids":
            content = miniatures.few(what, x) if known(x) else None
            hidden = hidden_pixels(frame.argument("pixel_mask"), x) if what == "pixels" else None
            found.append(InputArgument(what, name, frame.module, tuple(x.shape), side, hidden=hidden, content=content))
            continue
        ids = x.detach().clone()
        mask = frame.argument(name.replace("input_ids", "attention_mask"))
        hidden = None
        if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] >= ids.shape[1]:
            hidden = mask[:, mask.shape[1] - ids.shape[1] :] == 0
        found.append(InputArgument(what, name, frame.module, tuple(ids.shape), side, ids, hidden))
    return found


def hidden_pixels(mask: Any, pixels: Tensor) -> Tensor | None:
    """Where the mask beside some pixels hides them: the edges of a picture that is smaller than others of its batch."""
    if not isinstance(mask, Tensor) or mask.shape != (pixels.shape[0], *pixels.shape[-2:]) or not known(mask):
        return None
    return mask.detach().cpu() == 0


def what_is(name: str, x: Any) -> What | None:
    """What an argument says about positions; None for all others."""
    if not isinstance(x, Tensor) or x.is_meta:
        return None
    if x.dtype in (torch.int64, torch.int32):
        return "ids" if x.ndim == 2 and not any(word in name for word in NO_IDS) else None
    if not x.is_floating_point():
        return None
    if name in SOUNDS:
        return "sound"
    picture = x.ndim == 4 and x.shape[1] <= 4 and not any(word in name for word in ("mask", "bias"))
    return "pixels" if name == "pixel_values" or picture else None


def side_of(path: str) -> Side | None:
    """Whose part of a model a module is, by its path."""
    if "decoder" in path:
        return "decoder"
    return "encoder" if "encoder" in path else None


def side_of_argument(frame: Running, name: str) -> Side | None:
    """Whose positions an argument holds."""
    if name.startswith("decoder_") or name == "target":
        return "decoder"
    side = side_of(frame.name)
    if side is None and (name == "source" or is_paired(getattr(frame.module, "config", None))):
        return "encoder"
    return side


def is_paired(config: Any) -> bool:
    """Whether a model has an encoder and a decoder, by its config."""
    return bool(getattr(config, "is_encoder_decoder", False))


def agree(a: Side | None, b: Side | None) -> bool:
    """Whether two sides may be the same."""
    return a is None or b is None or a == b
