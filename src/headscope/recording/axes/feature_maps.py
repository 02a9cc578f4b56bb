"""Which feature map of a picture the positions of an attention call are: one that a backbone made, or windows of one.

Nothing is guessed from a count alone: the height and the width stand in the arguments of a module around the call
(Swin's `input_dimensions`, RT-DETR's maps), or of a position embedding that ran before it in there (DETR's `shape`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from headscope.calls.modules import Running
from headscope.hf.pictures import Windows

# A tensor of four axes with so few channels is a picture; one whose name holds such a word is no map.
FEWEST_CHANNELS = 5
NO_MAP = ("mask", "bias")
# Under this name a running module notes the maps that position embeddings within it were made for.
NOTE = "feature maps"


class Around(NamedTuple):
    """What the modules around a call say of feature maps.

    Attributes:
        windows: how the map was cut into the batch items of the call, where it was.
        maps: the heights and widths of whole maps, those of the innermost module first.
    """

    windows: Windows | None = None
    maps: tuple[tuple[int, int], ...] = ()

    def map_of(self, count: int) -> tuple[int, int] | None:
        """The map of so many positions; None where there is none, or maps of several shapes have as many."""
        found = {one for one in self.maps if math.prod(one) == count}
        return found.pop() if len(found) == 1 else None


def around(running: Iterable[Running], items: int, count: int) -> Around:
    """What the modules around a call of so many items and positions say, the innermost first."""
    windows, maps = None, []
    for frame in reversed(list(running)):
        arguments = frame.arguments()
        if windows is None:
            windows = windows_of(frame.module, arguments, items, count)
        maps += [*maps_in(arguments), *frame.notes.get(NOTE, ())]
    return Around(windows, tuple(maps))


def note(running: Iterable[Running], module: Running) -> None:
    """Note the map that a position embedding is made for with all modules that are running around it."""
    found = maps_in(module.arguments())
    for frame in running if found else ():
        frame.notes.setdefault(NOTE, []).extend(found)


def is_position_embedding(kind: type[nn.Module]) -> bool:
    """Whether a class embeds positions, by its name."""
    return "PositionEmbedding" in kind.__name__


def maps_in(arguments: Iterable[tuple[str, Any]]) -> list[tuple[int, int]]:
    """The heights and widths of feature maps in the arguments of a module.

    Example:
        >>> maps_in([("shape", torch.Size([1, 64, 3, 5])), ("width", 7), ("height", 2)])
        [(3, 5), (2, 7)]
    """
    named = dict(arguments)
    found = []
    for name, x in named.items():
        if name == "input_dimensions" and is_pair(x):
            found.append((int(x[0]), int(x[1])))
        elif isinstance(x, torch.Size) and len(x) == 4:
            found.append((x[2], x[3]))
        elif isinstance(x, Tensor) and is_map(name, x):
            found.append((x.shape[2], x.shape[3]))
    height, width = named.get("height"), named.get("width")
    return [*found, (height, width)] if is_pair((height, width)) else found  # type: ignore[list-item]


def is_map(name: str, x: Tensor) -> bool:
    """Whether an argument is a feature map `(batch, channels, height, width)`."""
    some = x.ndim == 4 and x.shape[1] >= FEWEST_CHANNELS and x.is_floating_point()
    return some and not any(word in name for word in NO_MAP)


def windows_of(module: nn.Module, arguments: Iterable[tuple[str, Any]], items: int, count: int) -> Windows | None:
    """How a module cut its feature map into windows, where they come to so many items of so many positions.

    Swin has the map's `input_dimensions` among its arguments, SAM the map itself, `(batch, height, width, channels)`.
    """
    size, shift = (getattr(module, name, 0) for name in ("window_size", "shift_size"))
    if not (isinstance(size, int) and isinstance(shift, int) and size > 0 and size * size == count):
        return None
    named = dict(arguments)
    dimensions: Any = named.get("input_dimensions")
    hidden = named.get("hidden_states")
    if dimensions is None and isinstance(hidden, Tensor) and hidden.ndim == 4:
        dimensions = tuple(hidden.shape[1:3])
    if not is_pair(dimensions):
        return None
    found = Windows(int(dimensions[0]), int(dimensions[1]), size, max(shift, 0))
    return found if items % found.count == 0 else None


def is_pair(x: Any) -> bool:
    """Whether something is a height and a width."""
    return isinstance(x, tuple | list) and len(x) == 2 and all(isinstance(one, int) and one > 0 for one in x)
