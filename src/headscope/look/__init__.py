"""One head's q, k, v and mask -> numbers. Knows no model.

The functions take plain `(b, h, q, d)` tensors; `hs.Head` has the same as methods.
"""

from headscope.look.average import mean
from headscope.look.chosen_pairs import gradient_times_weights, weights
from headscope.look.functions import (
    concentration,
    entropy,
    heatmap,
    offsets,
    project,
    received,
    received_by_group,
    top,
)

__all__ = [
    "concentration",
    "entropy",
    "gradient_times_weights",
    "heatmap",
    "mean",
    "offsets",
    "project",
    "received",
    "received_by_group",
    "top",
    "weights",
]
