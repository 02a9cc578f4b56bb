"""Sound -> Axis: frames in seconds, from the steps of the convolutions that a model cuts its input with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from headscope.look.axis import Axis

# Samples in a second, and seconds between two columns of a log-mel spectrogram: what the feature extractors of
# transformers make by default.
RATE, HOP = 16_000, 0.01
# Filters of a spectrogram of which every column holds two of them, one after the other (W2V-BERT, Seamless).
STACKED = 160


def frame_axis(module: nn.Module, name: str, shape: Sequence[int], count: int) -> Axis | None:
    """The axis of `count` positions of a module that was given sound.

    Args:
        name: "input_values", samples `(batch, samples)`, or "input_features", a spectrogram `(batch, filters, columns)`
            or `(batch, columns, filters)`, as the argument is called in transformers.

    None where the steps of the module's convolutions do not come to `count` frames.

    Example:
        >>> convolutions = nn.Sequential(nn.Conv1d(80, 5, 3, 1, 1), nn.Conv1d(5, 5, 3, 2, 1))
        >>> frame_axis(convolutions, "input_features", (1, 80, 30), 15).label(5)
        '0.10 s'
    """
    config: Any = getattr(module, "config", None)
    if name == "input_values" and len(shape) == 2:
        rate = getattr(config, "sampling_rate", None) or RATE
        length, seconds = shape[1], 1 / rate
    elif name == "input_features" and len(shape) == 3:
        first = next((part for part in module.modules() if isinstance(part, nn.Conv1d)), None)
        filters = getattr(config, "num_mel_bins", None) or (first.in_channels if first is not None else None)
        stacked = shape[2] == STACKED and STACKED in (filters, getattr(config, "feature_projection_input_dim", None))
        upright = shape[1] == filters or (shape[1] < shape[2] and shape[2] != filters and not stacked)
        length, seconds = (shape[2] if upright else shape[1]), HOP * (2 if stacked else 1)
    else:
        return None
    for step in dict.fromkeys((strides(config), convolved(module), 1)):
        # A convolution without padding loses a frame or two at the end.
        lost = 2 if step != 1 else 0
        if step is not None and length // step - lost <= count <= math.ceil(length / step):
            return Axis.frames(count, step * seconds)
    return None


def strides(config: Any) -> int | None:
    """The product of the strides that a config names (wav2vec 2.0 and its kin; conformers)."""
    whole = getattr(config, "subsampling_factor", None)
    if isinstance(whole, int):
        return whole
    steps = getattr(config, "conv_stride", None)
    return math.prod(steps) if isinstance(steps, Sequence) and all(isinstance(one, int) for one in steps) else None


def convolved(module: nn.Module) -> int:
    """The product of the strides of the convolutions along one axis."""
    return math.prod(part.stride[0] for part in module.modules() if isinstance(part, nn.Conv1d))
