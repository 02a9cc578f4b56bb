"""The measures of every recorded head, added up over batch items."""

from __future__ import annotations

from collections.abc import Iterable

from headscope.look.measures import measures
from headscope.look.totals import Totals
from headscope.recording.layer import Layer


def totals_of(layers: Iterable[tuple[int, Layer]]) -> Totals:
    """The sums of every head of some layers, over all their batch items."""
    totals = Totals()
    for number, layer in layers:
        for item in range(layer.items):
            found = measures(layer.request(item), layer.queries[item], layer.keys[item], layer.sequences(item))
            totals.add(number, layer.head_numbers, found, layer.name)
    return totals
