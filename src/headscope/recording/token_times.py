"""When the tokens of a speech model were spoken: time warping over the heads that move along with the sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from headscope.errors import LookError
from headscope.look.axis import Axis
from headscope.look.time_warp import aligned, rise
from headscope.look.words import bare, word_numbers
from headscope.recording.layer import Layer

# Heads that are taken where the model names none: the ones that rise most, those that rise at least so much.
MOST, RISE = 6, 0.5

Places = Sequence[tuple[int, int]]
Numbered = Sequence[tuple[int, Layer]]


class Spoken(NamedTuple):
    """A token, or a word of several.

    Attributes:
        text: the token's label, or the word.
        position: its place, or that of its first token, on the axis of the queries.
        first, stop: its frames, `first ≤ frame < stop`.
        start, end: the same in seconds.
    """

    text: str
    position: int
    first: int
    stop: int
    start: float
    end: float


@dataclass(frozen=True)
class TokenTimes:
    """When every token was spoken, and every word.

    Attributes:
        tokens, words: in the order of the text, without what is special.
        heads: the heads that it was read from, by the numbers of the recording.
        chosen_by: "caller", "model" where the model names its heads, "rise" where those that rise most were taken.
    """

    tokens: tuple[Spoken, ...]
    words: tuple[Spoken, ...]
    heads: tuple[tuple[int, int], ...]
    chosen_by: Literal["caller", "model", "rise"]

    def __str__(self) -> str:
        return "\n".join(f"{word.start:6.2f} to {word.end:6.2f} s  {word.text}" for word in self.words)


def token_times(layers: Numbered, named: Places, heads: Places | None, item: int) -> TokenTimes:
    """When the tokens of a batch item were spoken; see `Recording.token_times`."""
    to_sound = from_tokens_to_sound(layers, item)
    queries, keys = (axes[item] for axes in (to_sound[0][1].queries, to_sound[0][1].keys))
    content = [i for i, special in enumerate(queries.special) if not special]
    if not content:
        raise LookError("token_times: every token is special; record the model while it reads or writes a text.")
    # A decoder begins with a start token, and the row that writes a token is the one before it; the last token's own
    # row writes what comes next, and so ends it. Without a start token every row is its own token's.
    ahead = int(content[0] > 0)
    rows = sorted({i - ahead for i in content} | {content[-1]})
    frames = [j for j, silent in enumerate(keys.special) if not silent] or list(range(keys.length))
    chosen, by, weights = weights_of(to_sound, named, heads, item, rows, frames)
    if not bool(weights.isfinite().all()):
        raise LookError(
            f"token_times: the weights of heads {list(chosen)} hold NaN: their queries or keys overflowed. Record the "
            "model in float32 or bfloat16, or name other heads: recording.token_times(heads=[(layer, head), ...])."
        )
    path = aligned(weights)
    starts = [frames[int(path.columns[int((path.rows == row).nonzero()[0])])] for row in range(len(rows))]
    ends = dict(zip(rows, [*starts[1:], frames[-1] + 1], strict=True))
    begins = dict(zip(rows, starts, strict=True))
    spans = {i: (begins[i - ahead], ends[i - ahead]) for i in content}
    tokens = tuple(spoken(queries.labels[i], i, *spans[i], keys) for i in content)
    return TokenTimes(tokens, words_of(queries, tokens, keys), chosen, by)


def from_tokens_to_sound(layers: Numbered, item: int) -> Numbered:
    """The layers in which tokens look at frames of sound."""
    found = [
        (number, layer)
        for number, layer in layers
        if layer.kind == "cross" and -layer.items <= item < layer.items and layer.keys[item].kind == "frames"
    ]
    axes = {(layer.queries[item], layer.keys[item]) for _, layer in found}
    if len(axes) != 1 or found[0][1].queries[item].kind != "tokens":
        raise LookError(
            f"token_times: {len(found)} layers with cross-attention from tokens to frames of sound were recorded of "
            f"item {item}, over {len(axes)} pairs of axes; record one pass or one generation of a speech model with a "
            "decoder, such as Whisper."
        )
    return found


def weights_of(
    to_sound: Numbered, named: Places, heads: Places | None, item: int, rows: list[int], frames: list[int]
) -> tuple[tuple[tuple[int, int], ...], Literal["caller", "model", "rise"], Float64[Tensor, "h q k"]]:
    """The heads that are taken, who chose them, and their weights."""
    every = {(number, head): (layer, row) for number, layer in to_sound for row, head in enumerate(layer.head_numbers)}

    def weights(place: tuple[int, int]) -> Tensor:
        layer, row = every[place]
        return layer.head(row, item % layer.items).weights(rows, frames).double().cpu()

    if heads is not None:
        missing = [place for place in heads if tuple(place) not in every]
        if missing or not heads:
            raise LookError(
                f"token_times: heads {missing or list(heads)} do not look from tokens at sound; give "
                f"(layer, head) of layers {', '.join(str(number) for number, _ in to_sound)}."
            )
        chosen = tuple((layer, head) for layer, head in heads)
        return chosen, "caller", torch.stack([weights(place) for place in chosen])
    # The model counts the layers of its decoder, whose number is the last one in the path of the module.
    numbers = {number_in(layer.name): number for number, layer in to_sound}
    chosen = tuple((numbers[layer], head) for layer, head in named if layer in numbers)
    chosen = tuple(place for place in chosen if place in every)
    if chosen:
        return chosen, "model", torch.stack([weights(place) for place in chosen])
    rises = {place: rise(weights(place)) for place in every}
    best = sorted(rises, key=lambda place: -rises[place])[:MOST]
    chosen = tuple(place for place in best if rises[place] >= RISE)
    if not chosen:
        raise LookError(
            f"token_times: no head moves along the sound with the tokens: the correlation of token and frame is "
            f"{rises[best[0]]:.2f} at most, and {RISE} is needed. Name the heads: "
            "recording.token_times(heads=[(layer, head), ...])."
        )
    return chosen, "rise", torch.stack([weights(place) for place in chosen])


def alignment_heads(model: object) -> tuple[tuple[int, int], ...]:
    """The heads that the generation config of a model names for the times of words: layer of the decoder, head."""
    found = getattr(getattr(model, "generation_config", None), "alignment_heads", None)
    try:
        return tuple((int(layer), int(head)) for layer, head in found or () if min(layer, head) >= 0)
    except (TypeError, ValueError):  # what a config holds can be anything
        return ()


def number_in(name: str) -> int | None:
    """The number of a layer in the path of its module.

    Example:
        >>> number_in("model.decoder.layers.3.encoder_attn")
        3
    """
    return next((int(part) for part in reversed(name.split(".")) if part.isdecimal()), None)


def spoken(text: str, position: int, first: int, stop: int, keys: Axis) -> Spoken:
    """A token with its frames, and these in seconds."""
    seconds = keys.seconds or 0.0
    return Spoken(text, position, first, stop, first * seconds, stop * seconds)


def words_of(queries: Axis, tokens: Sequence[Spoken], keys: Axis) -> tuple[Spoken, ...]:
    """The words that the tokens make, each from the beginning of its first token to the end of its last."""
    numbers = word_numbers(queries).tolist()
    groups: dict[int, list[Spoken]] = {}
    for token in tokens:
        groups.setdefault(numbers[token.position], []).append(token)
    return tuple(
        spoken("".join(bare(one.text) for one in group), group[0].position, group[0].first, group[-1].stop, keys)
        for group in groups.values()
    )
