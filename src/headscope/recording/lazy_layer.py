"""A layer whose tensors are elsewhere (in a file, on other ranks), and are fetched when somebody looks at one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from headscope.attention.masks.runs import Runs
from headscope.recording.layer import Layer

TENSORS = ("q", "k", "v", "runs", "bias", "by_offset", "sinks", "lse")


def fetched(name: str) -> Any:
    """A tensor of a lazy layer: all are fetched when the first one is asked for."""
    return property(lambda layer: layer.opened()[name])


class LazyLayer(Layer, ABC):
    """All but the tensors is at hand."""

    q: Tensor = fetched("q")
    k: Tensor = fetched("k")
    v: Tensor | None = fetched("v")
    runs: Runs | None = fetched("runs")
    bias: Tensor | None = fetched("bias")
    by_offset: Tensor | None = fetched("by_offset")
    sinks: Tensor | None = fetched("sinks")
    lse: Tensor | None = fetched("lse")

    @abstractmethod
    def opened(self) -> dict[str, Any]:
        """The tensors by their names."""
