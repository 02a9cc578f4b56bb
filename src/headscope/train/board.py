"""TensorBoard: a curve for every measure of every head, and pictures of chosen heads."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headscope.look.head import Head
from headscope.look.table import Row
from headscope.recording.recording import Recording
from headscope.train.head_rows import LOSS, PLACE
from headscope.view.colour import table
from headscope.view.picture import picture, top

# Pixels along one side of a picture, at most and, for small heads, about.
PIXELS = 256


def is_there() -> bool:
    """Whether TensorBoard is installed."""
    return importlib.util.find_spec("tensorboard") is not None


class Board:
    """Writes the events that `tensorboard --logdir` shows.

    Args:
        folder: where to.
        step: where the training stands; what an earlier start wrote of later steps is hidden.
        images: the heads that are drawn at every look, as (layer, head).
    """

    def __init__(self, folder: Path, step: int, images: Sequence[tuple[int, int]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.images = images
        self._told: int | None = None
        self.writer: Any = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def add(self, step: int, rows: Sequence[Row], recording: Recording) -> None:
        """The curves and pictures of one look; measure first, so that a measure's heads stand together."""
        for row in rows:
            for name, value in row.items():
                if name not in (*PLACE, LOSS):
                    self.writer.add_scalar(f"{name}/{row['layer']}.{row['head']}", value, step)
        if rows and LOSS in rows[0]:
            self.loss(step, rows[0][LOSS])
        for layer, head in self.images:
            self.writer.add_image(f"heads/{layer}.{head}", image(recording[layer, head]), step, dataformats="HWC")
        self.writer.flush()

    def loss(self, step: int, value: float) -> None:
        """A point of the curve of the loss, one for each step."""
        if step != self._told:
            self._told = step
            self.writer.add_scalar("train/loss", value, step)

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


def image(head: Head) -> np.ndarray:
    """The heat map of a head as `(height, width, 3)` bytes, its cells large enough to be seen."""
    pooled = picture(head, PIXELS, PIXELS)
    shares = (pooled.clamp(min=0) / top(pooled, len(head.k))).clamp(max=1)
    larger = max(1, PIXELS // max(pooled.shape))
    colours = torch.from_numpy(table("light"))[(255 * shares).round().long()]
    return np.asarray(colours.repeat_interleave(larger, 0).repeat_interleave(larger, 1))
