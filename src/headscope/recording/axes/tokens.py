"""`recording.tokens`: what the positions of a recording are, said by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from headscope.errors import LookError
from headscope.hf.axes import token_axis
from headscope.hf.vocabulary import ids_axis
from headscope.look.axis import Axis
from headscope.recording.layer import Layer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

Side = Literal["encoder", "decoder"]
Spans = Sequence[tuple[int, int] | None]


def label(
    layers: Sequence[Layer],
    texts: Sequence[str] | Axis | None = None,
    *,
    ids: Sequence[int] | Tensor | None = None,
    spans: Spans | None = None,
    special: Sequence[bool] | None = None,
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None = None,
    item: int = 0,
    side: Side | None = None,
) -> None:
    """Give the positions of one batch item their tokens; see `Recording.tokens`."""
    words: Any = getattr(tokenizer, "tokenizer", tokenizer)  # a processor holds one
    if words is not None and texts is None and ids is None:
        again(layers, words)
        return
    axis = texts if isinstance(texts, Axis) else made(texts, ids, spans, special, words)
    paired = any(layer.kind == "cross" for layer in layers)
    places = [
        (layer, name, part)
        for layer in layers
        for name, part in zip(("queries", "keys"), sides(layer, paired), strict=True)
        if side is None or part is None or part == side
    ]
    fitting = [(layer, name, part) for layer, name, part in places if fits(layer, name, item, axis.length)]
    if not fitting:
        lengths = sorted({positions(layer, name, item) for layer, name, _ in places if item < layer.items})
        raise LookError(
            f"recording.tokens: {axis.length} tokens were given and no axis of item {item} has that many positions; "
            f"there are axes of {', '.join(map(str, lengths)) or 'no'} positions. Give one token for each position, "
            "special tokens included."
        )
    if side is None and len({part for _, _, part in fitting} - {None}) > 1:
        raise LookError(
            f"recording.tokens: the encoder and the decoder both have {axis.length} positions; say whose tokens these "
            "are with "
            'side="encoder" or side="decoder".'
        )
    for layer, name, _ in fitting:
        axes = list(getattr(layer, name))
        axes[item] = renamed(axes[item], axis, layer.rows or ())
        setattr(layer, name, axes)


def renamed(old: Axis, new: Axis, rows: Sequence[int]) -> Axis:
    """What the positions of an axis are now: all of them, those that were selected, or one segment."""
    if old.length != new.length and (place := segment_of(old, new.length)) is not None:
        parts = list(old.parts or ())
        parts[place] = parts[place][0], renamed(parts[place][1], new, ())
        return Axis.of_parts(tuple(parts))
    named = new if old.length == new.length else new.select(rows)
    # What the model's input mask hid stays known when the positions get other words.
    kept = named.padding is not None or named.parts is not None
    return named if kept else replace(named, padding=old.padding)


def segment_of(axis: Axis, length: int) -> int | None:
    """Which segment of an axis has that many positions; None where not exactly one has."""
    fitting = [place for place, (_, part) in enumerate(axis.parts or ()) if part.length == length]
    return fitting[0] if len(fitting) == 1 else None


def made(
    texts: Sequence[str] | None,
    ids: Sequence[int] | Tensor | None,
    spans: Spans | None,
    special: Sequence[bool] | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> Axis:
    """An axis of tokens from what was given of them."""
    numbers: list[int] | None = None
    if ids is not None:
        listed: Any = ids.squeeze(0).tolist() if isinstance(ids, Tensor) else ids
        if listed and isinstance(listed[0], list):
            raise LookError(
                f"recording.tokens: ids of {len(listed)} batch items were given; give those of one, ids[i] with item=i."
            )
        numbers = [int(number) for number in listed]
    if isinstance(texts, str):
        if tokenizer is None:
            raise LookError(
                f"recording.tokens: one text was given ({texts[:40]!r}); give the tokenizer beside it, or a list with "
                "a text for each token."
            )
        return token_axis(tokenizer, tokenizer(texts, verbose=False), texts)
    if texts is None:
        if numbers is None or tokenizer is None:
            raise LookError("recording.tokens: give a text for each token, or ids and the tokenizer that made them.")
        axis = ids_axis(numbers, tokenizer)
        texts, spans = axis.labels, axis.spans if spans is None else spans
        special = axis.special if special is None else special
    return Axis.tokens(texts, ids=numbers, spans=spans, special=special)


def again(layers: Sequence[Layer], tokenizer: PreTrainedTokenizerBase) -> None:
    """Give every axis whose token ids are known the words of a tokenizer.

    Raises:
        LookError: no ids are known, or the tokenizer does not have them.
    """
    found: dict[Axis, Axis] = {}
    for axis in {axis for layer in layers for axes in (layer.queries, layer.keys) for axis in axes}:
        if axis.ids is not None:
            named = ids_axis(axis.ids, tokenizer)
            special = [a or b for a, b in zip(named.special, axis.special, strict=True)]
            found[axis] = replace(named, special=tuple(special), padding=axis.padding)
    if not found:
        raise LookError(
            "recording.tokens: a tokenizer was given, and the model was given no token ids in the block; give their "
            "texts or ids, too."
        )
    for layer in layers:
        layer.queries = [found.get(axis, axis) for axis in layer.queries]
        layer.keys = [found.get(axis, axis) for axis in layer.keys]


def sides(layer: Layer, paired: bool) -> tuple[Side | None, Side | None]:
    """Whose positions the queries and keys of a layer are, in a model whose decoder looks at an encoder."""
    if not paired:
        return None, None
    if layer.kind == "cross":
        return "decoder", "encoder"
    own: Side = "encoder" if "encoder" in layer.name.replace("decoder", "") else "decoder"
    return own, own


def positions(layer: Layer, name: str, item: int) -> int:
    """How many positions an axis has; for selected queries all that the model had, as far as is known."""
    axis: Axis = getattr(layer, name)[item]
    if name == "queries" and layer.rows is not None and layer.kind != "cross":
        return layer.keys[item].length
    return axis.length


def fits(layer: Layer, name: str, item: int, length: int) -> bool:
    """Whether an axis of that item has, was selected from, or has one segment of, that many positions."""
    if item >= layer.items:
        return False
    return positions(layer, name, item) == length or segment_of(getattr(layer, name)[item], length) is not None
