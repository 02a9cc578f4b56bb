"""What stands in a lesson's tables: which tokens, what they are called, and the kinds of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from headscope.characters import shortened, visible
from headscope.lesson.worked_example import WorkedExample

# Tokens of a table; of a longer text those with the largest weights stand in it.
MOST, FEW = 16, 4


class Vector(NamedTuple):
    """A cell with many numbers."""

    numbers: tuple[float, ...]


class Share(NamedTuple):
    """A cell with a number from 0 to 1, drawn as a bar."""

    number: float


Cell = str | float | Vector | Share


def near(example: WorkedExample, *, most: int = MOST) -> list[int]:
    """The keys that stand in a table: all, or those with the largest weights, in the order of the text."""
    count = len(example.weights)
    return list(range(count)) if count <= most else sorted(example.weights.topk(most).indices.tolist())


def around(example: WorkedExample) -> list[int]:
    """The queries that stand in a table: all, or those around the one that is worked out."""
    length = example.lens.queries.length
    first = max(0, min(example.query - MOST // 2, length - MOST))
    return list(range(first, min(length, first + MOST)))


def at(rows: Sequence[int], position: int) -> frozenset[int]:
    """Where a position stands in a table, if it does."""
    return frozenset({rows.index(position)}) if position in rows else frozenset()


def named(labels: Sequence[str], position: int) -> str:
    """A token as it is read, with its place where others are the same."""
    label = shortened(visible(labels[position]), 24)
    return f"{label} ({position})" if labels.count(labels[position]) > 1 else label


def vector(x: Tensor) -> Vector:
    """A tensor as a cell."""
    return Vector(tuple(x.double().tolist()))


def sized(shape: Sequence[int]) -> str:
    """A shape as it is printed."""
    return "(" + ", ".join(map(str, shape)) + ")"
