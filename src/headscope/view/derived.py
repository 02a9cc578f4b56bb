"""What is derived from all heads together and shown beside them as if it were one more: the attention rollout."""

from __future__ import annotations

import torch

from headscope.errors import LookError
from headscope.recording.recording import Layer
from headscope.view.subject import Subject

ROLLOUT = "rollout"
SENTENCE = "derived from all layers: for each position its sources in the input"
# Positions and batch items up to which it is computed: a product of matrices for every layer, 0.5 MB of a page.
MOST_POSITIONS, MOST_ITEMS = 512, 4


def rollout_layer(subject: Subject) -> Layer | None:
    """The rollout as a layer of one head, whose weights are in its bias; None where it is not defined or too large.

    Source: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers".
    """
    layers = [layer for layer in subject.layers if layer.kind != "cross"]
    items = max(layer.items for layer in subject.layers)
    if subject.single or len(layers) < 2 or items > MOST_ITEMS or layers[-1].k.shape[2] > MOST_POSITIONS:
        return None
    try:
        used = [one for one in subject.recording.rollout_layers() if one.used]
        found = torch.stack([subject.recording.rollout(item=item) for item in range(layers[-1].items)])
    except LookError:
        return None
    if len(used) < 2 or found.shape[1] != found.shape[2] or not bool(found.isfinite().all()):
        return None
    nothing = torch.zeros(len(found), 1, found.shape[1], 1)
    return Layer(
        name=f"rollout of {len(used)} layers: in each the mean of its heads, half of every position kept",
        kind="self",
        q=nothing,
        k=nothing,
        v=None,
        runs=None,
        scale=1.0,
        bias=found.float().clamp_min(0.0).log()[:, None],
        queries=layers[-1].queries,
        keys=layers[-1].queries,
        source="weights",
    )
