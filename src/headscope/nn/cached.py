"""Layers that keep keys and values in a cache, and the names by which a cache knows them."""

from __future__ import annotations

from torch import nn

from headscope.nn.movable import Movable


class Cached(Movable):
    """A layer that keeps keys and values in a cache.

    Attributes:
        cache_names: the names that this layer had in models for which a cache was made.
    """

    cache_names: frozenset[str] = frozenset()


def cached_layers(model: nn.Module) -> dict[str, Cached]:
    """The layers inside a model that keep keys and values, by their names; each once."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Cached)}


class Bindings:
    """Which layers stand behind the names of a cache: found by name, and never copied or saved with it."""

    def __init__(self) -> None:
        # By identity: a traced graph can look it up, and a layer is not kept alive.
        self.names: dict[int, str] = {}

    def bind(self, layers: dict[str, Cached]) -> None:
        """Let layers stand behind their names; each of them remembers the name for copies of the cache."""
        for name, layer in layers.items():
            self.names[id(layer)] = name
            layer.cache_names |= {name}

    def name(self, layer: Cached, known: set[str]) -> str | None:
        """The name of a layer in a cache that knows these; None for a layer of another model."""
        name = self.names.get(id(layer))
        if name is not None:
            return name
        # A cache that was copied or loaded meets its layers again: by a name that they had, and that is still free.
        free = known - set(self.names.values())
        had = layer.cache_names or (known if len(known) == 1 else frozenset())
        found = free & had
        if len(found) != 1:
            return None
        name = found.pop()
        self.names[id(layer)] = name
        return name
