"""Cells of a table -> texts and words."""

from __future__ import annotations

import math
from typing import Any

from headscope.files.rows import Row
from headscope.train.tasks.task import Place


def text_of(row: Row, role: str, place: Place) -> str:
    """A cell as one text, empty where there is nothing in it.

    Raises:
        TrainingError: the cell holds a list or an object.
    """
    name = place.columns[role]
    value = row.get(name)
    if isinstance(value, list | dict):
        tags = "One tag for each word is --task tag; else give" if role in ("text", "label") else "Give"
        raise place.error(f"{name!r} holds {'a list' if isinstance(value, list) else 'an object'}. {tags} one text.")
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)  # tables with an empty cell make 1.0 of a label 1
    return "" if value is None or value != value else str(value).strip()


def words_of(row: Row, role: str, place: Place) -> list[str]:
    """A cell as words: a list as it is, a text cut at its spaces; an empty word in a list stays, so that tags fit."""
    value = row.get(place.columns[role])
    if isinstance(value, list):
        return [str(word) for word in plain(value, role, place)]
    return [] if value is None else str(value).split()


def texts_of(row: Row, role: str, place: Place) -> list[str]:
    """A cell as several texts: a list without its empty entries, or one text."""
    value = row.get(place.columns[role])
    if isinstance(value, list):
        return [str(one).strip() for one in plain(value, role, place) if one is not None and str(one).strip()]
    one = text_of(row, role, place)
    return [one] if one else []


def plain(value: list[Any], role: str, place: Place) -> list[Any]:
    """The entries of a list, none of which is a list or an object itself.

    Raises:
        TrainingError: one is; names the line.
    """
    nested = next((one for one in value if isinstance(one, list | dict)), None)
    if nested is not None:
        inside = "a list" if isinstance(nested, list) else "an object"
        raise place.error(f"the list in {place.columns[role]!r} holds {inside}. Give a list of texts.")
    return value
