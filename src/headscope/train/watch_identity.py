"""What a watch belongs to: rows of one are never continued with another model, probe or selection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from headscope.files.digests import digest_of_tensors, digest_of_values
from headscope.look.measures import MEASURES
from headscope.recording.ranks.share import here

FORMAT = 1


def about(model: nn.Module, probe: Any, layers: Any, heads: Any) -> dict[str, Any]:
    """What makes a watch this one. Weights are not in it: they are what changes."""
    # Of a model that several processes share out, each has other parts; how many do may change at a resume.
    parts = [] if here() is not None else sorted((name, list(x.shape)) for name, x in model.state_dict().items())
    return {
        "format": FORMAT,
        "model": digest_of_values([type(model).__name__, parts]),
        "probe": digest_of_probe(probe),
        "selection": digest_of_values([repr(layers), repr(heads)]),
        "measures": sorted(MEASURES),
    }


def digest_of_probe(probe: Any) -> str:
    """The digest of what a model is called with; functions are all alike."""
    if callable(probe):
        return "a function"
    named = probe.items() if isinstance(probe, Mapping) else enumerate(probe)
    values = {str(name): value for name, value in named}
    tensors = {name: x for name, x in values.items() if isinstance(x, Tensor)}
    rest = {name: repr(x) for name, x in values.items() if isinstance(x, str | int | float | bool | None)}
    return digest_of_values([digest_of_tensors(tensors), rest, sorted(values)])
