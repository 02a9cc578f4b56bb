"""Measures of heads that add up: over batch items, over texts, over processes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from headscope.errors import LookError
from headscope.look.measures import MEASURES, Sums
from headscope.look.table import Row, Table

# Written beside the sums, so that sums of another make are not added up.
FORMAT = 1


class Totals:
    """For every head and every measure a sum and a count.

    Example:
        >>> import torch
        >>> from headscope.look.measures import Mean
        >>> totals = Totals()
        >>> totals.add(0, [0, 1], {"entropy": Mean(torch.tensor([1.0, 3.0]), 2.0)})
        >>> [row["entropy"] for row in totals.table()]
        [0.5, 1.5]
    """

    def __init__(self) -> None:
        self.sums: dict[tuple[int, int], dict[str, list[float]]] = {}
        self.names: dict[int, str] = {}

    def add(self, layer: int, heads: Iterable[int], found: Sums, name: str = "") -> None:
        """Add what was measured of some heads of one layer."""
        self.names[layer] = name
        for position, head in enumerate(heads):
            kept = self.sums.setdefault((layer, head), {})
            for measure, (values, count) in found.items():
                pair = kept.setdefault(measure, [0.0, 0.0])
                pair[0] += float(values[position])
                pair[1] += count

    def merge(self, other: Totals) -> None:
        """Add everything that other totals have."""
        self.names |= other.names
        for head, found in other.sums.items():
            kept = self.sums.setdefault(head, {})
            for measure, (total, count) in found.items():
                pair = kept.setdefault(measure, [0.0, 0.0])
                pair[0] += total
                pair[1] += count

    def table(self) -> Table:
        """One row for each head: the mean of every measure, NaN where it was never measured."""
        measured = {measure for found in self.sums.values() for measure in found}
        columns = [measure for measure in MEASURES if measure in measured]
        rows: list[Row] = []
        for (layer, head), found in sorted(self.sums.items()):
            means = {name: total / count if count else float("nan") for name, (total, count) in found.items()}
            rows.append({"layer": layer, "head": head} | {name: means.get(name, float("nan")) for name in columns})
        return Table(rows)

    def to_json(self) -> str:
        """The sums as text, exactly."""
        heads = [[*head, found] for head, found in sorted(self.sums.items())]
        return json.dumps({"format": FORMAT, "names": self.names, "heads": heads})

    @classmethod
    def from_json(cls, text: str) -> Totals:
        """Sums that `to_json` wrote.

        Raises:
            LookError: the text is something else, or of another version.
        """
        totals = cls()
        try:
            content: Mapping[str, Any] = json.loads(text)
            if content["format"] != FORMAT:
                raise LookError(f"totals: format {content['format']!r}; this version reads {FORMAT}. Start again.")
            totals.names = {int(layer): str(name) for layer, name in content["names"].items()}
            for layer, head, found in content["heads"]:
                sums = {name: [float(total), float(count)] for name, (total, count) in found.items()}
                totals.sums[int(layer), int(head)] = sums
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, LookError):
                raise
            raise LookError(f"totals: this holds no sums of heads ({error}). Remove it, and start again.") from error
        return totals
