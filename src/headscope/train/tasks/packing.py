"""Texts of any length -> rows of equal length, in which no text sees another and nothing is padding."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from headscope.train.eval_mode import undisturbed
from headscope.train.tasks.task import IGNORED

# Tokens of the two texts on which a model is asked whether packed texts see one another, and the largest difference.
PROBED, SAME = 5, 1e-3


@dataclass
class PackedRow:
    """A row: token ids, the place of each in its text, and labels.

    The first token of each piece has no label. `owners` says of every label which text it is of.
    """

    input_ids: list[int] = field(default_factory=list)
    position_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)

    def add(self, piece: Sequence[int], owner: int) -> None:
        """Put a piece of a text at the end."""
        self.input_ids += piece
        self.position_ids += range(len(piece))
        self.labels += [IGNORED, *piece[1:]]
        self.owners += [owner] * (len(piece) - 1)


def packed(texts: Sequence[Sequence[int]], length: int, padding: int) -> Iterator[PackedRow]:
    """Rows of exactly `length` tokens, filled with one text after the other.

    A text that does not fit into the rest of a row goes on in the next one, which repeats its last token: so every
    token but the first of each text is predicted exactly once. Only the last row is filled up, with `padding`.

    Example:
        >>> rows = list(packed([[1, 2, 3], [1, 4, 5]], length=4, padding=0))
        >>> [row.input_ids for row in rows], [row.labels for row in rows]
        ([[1, 2, 3, 1], [1, 4, 5, 0]], [[-100, 2, 3, -100], [-100, 4, 5, -100]])
    """
    row = PackedRow()
    for owner, text in enumerate(texts):
        place = 0
        while place < len(text) - 1:
            piece = text[place : place + length - len(row.input_ids)]
            row.add(piece, owner)
            place += len(piece) - 1
            if len(row.input_ids) == length:
                yield row
                row = PackedRow()
    if row.labels:
        missing = length - len(row.input_ids)
        row.input_ids += [padding] * missing
        row.position_ids += range(missing)
        row.labels += [IGNORED] * missing
        yield row


def apart(texts: Sequence[Sequence[int]], length: int) -> Iterator[PackedRow]:
    """Rows that hold a piece of one text each, for models in which packed texts would see one another."""
    for owner, text in enumerate(texts):
        for place in range(0, max(0, len(text) - 1), length - 1):
            row = PackedRow()
            row.add(text[place : place + length], owner)
            yield row


def isolates(model: Any) -> bool:
    """Whether a model that is told the places of tokens in their texts keeps packed texts apart: asked of itself."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    size = int(model.get_input_embeddings().weight.shape[0])
    ids = torch.arange(1, 2 * PROBED + 1, device=model.device)[None] % size
    places = torch.arange(PROBED, device=model.device).repeat(2)[None]
    with undisturbed(model):
        both = model(input_ids=ids, position_ids=places)["logits"][:, PROBED:]
        alone = model(input_ids=ids[:, PROBED:], position_ids=places[:, PROBED:])["logits"]
    return bool((both - alone).abs().max() <= SAME * (1 + alone.abs().max()))
