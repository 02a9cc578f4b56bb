"""The measures of every recorded head, added up over batch items; and what stands below their table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from headscope.characters import sentence
from headscope.look.measures import measures
from headscope.look.totals import Totals
from headscope.recording.layer import Layer


def totals_of(layers: Iterable[tuple[int, Layer]]) -> Totals:
    """The sums of every head of some layers, over all their batch items; a head of an empty layer has none."""
    totals = Totals()
    for number, layer in layers:
        totals.add(number, layer.head_numbers, {}, layer.name)
        for item in range(layer.items):
            known = layer.sequences(item), layer.known_overview(item)
            found = measures(layer.request(item), layer.queries[item], layer.keys[item], *known)
            totals.add(number, layer.head_numbers, found, layer.name)
    return totals


def empty_layers(numbers: Sequence[int], layers: Sequence[Layer]) -> Iterator[str]:
    """A line for each layer in which there is nothing to measure."""
    for number, layer in zip(numbers, layers, strict=True):
        if not (layer.items and layer.q.shape[2] and layer.k.shape[2]):
            yield (
                f"layer {number} is empty: {layer.items} batch items, {layer.q.shape[2]} queries, "
                f"{layer.k.shape[2]} keys"
            )


def missed_modules(missed: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """A line for each module whose attention ran and was not captured."""
    for path, kind, why in missed:
        yield sentence(f"missed: {path or 'the model itself'} ({kind}): {why}")
