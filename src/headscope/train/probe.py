"""The probe: what a model is called with whenever it is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from headscope.errors import TrainingError
from headscope.look.axis import Axis
from headscope.recording.recording import Recording

# Keyword arguments, positional arguments, or a function that calls the model it is given.
Probe = Mapping[str, Any] | tuple[Any, ...] | Callable[[Any], object]
# A text for each token, an axis, or a function that says of a recording what its positions are.
Tokens = Sequence[str] | Axis | Callable[[Recording], object]


def check(probe: object) -> None:
    """Raise `TrainingError` unless a model can be called with this."""
    if not (isinstance(probe, Mapping | tuple) or callable(probe)) or isinstance(probe, nn.Module | type):
        raise TrainingError(
            f"Watch: the probe is a {type(probe).__name__}; give what the model is called with: keyword arguments as a "
            "mapping, positional ones as a tuple, as in (ids,), or a function that takes the model."
        )
    if isinstance(probe, Mapping) and not all(isinstance(name, str) for name in probe):
        raise TrainingError(
            f"Watch: the probe is a mapping with {next(k for k in probe if not isinstance(k, str))!r} in the place of "
            "a name; give the names of the model's arguments."
        )


def call(model: nn.Module, probe: Any) -> None:
    """Call the model with the probe, on the device the model is on."""
    device = next((x.device for x in model.parameters()), None)

    def there(x: Any) -> Any:
        return x.to(device) if isinstance(x, Tensor) and device is not None else x

    if isinstance(probe, Mapping):
        model(**{name: there(x) for name, x in probe.items()})
    elif isinstance(probe, tuple):
        model(*(there(x) for x in probe))
    else:
        probe(model)


def label(recording: Recording, tokens: Any) -> None:
    """Say what the positions of a recording are, if that is known."""
    if callable(tokens):
        tokens(recording)
    elif tokens is not None:
        recording.tokens(tokens)
