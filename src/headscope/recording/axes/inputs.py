"""What the positions of a recording are, from what the model was given: token ids, pixels, or sound.

Every attention call runs inside of modules, and one of them was given ids, pixels or samples of as many positions as
the call has: the innermost such module says what the positions are. Nothing is computed while the model runs; ids are
copied, and of pixels and sound what a miniature needs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from headscope.attention.known import known
from headscope.calls.call import Call
from headscope.calls.modules import Running, parameters
from headscope.hf import miniatures
from headscope.hf.pictures import patch_axis
from headscope.hf.sounds import frame_axis
from headscope.hf.vocabulary import ids_axis, knows, tokenizer_at_hand, with_placeholders, with_special
from headscope.look.axis import Axis
from headscope.recording.axes.tokens import Side
from headscope.recording.layer import Layer
from headscope.recording.steps import Steps, of_items

What = Literal["ids", "pixels", "sound"]
# Whole numbers in two axes that are no token ids have one of these in their names.
NO_IDS = ("mask", "position", "type", "segment", "label", "length", "ind", "cache", "bbox", "size", "grid", "lang")
SOUNDS = ("input_features", "input_values")
SPECIAL = ("bos", "eos", "pad", "cls", "sep", "decoder_start")


@dataclass(frozen=True, eq=False)
class InputArgument:
    """One argument of a running module that says what positions are.

    Attributes:
        ids: `(batch, positions)`, where these are tokens.
        hidden: `(batch, positions)`, true where the mask beside the ids hides them.
        side: whose positions these are in a model with an encoder and a decoder, where that is known.
        content: the first pictures or sounds of the batch, for miniatures; None where their numbers are not known.
    """

    what: What
    name: str
    module: nn.Module
    shape: tuple[int, ...]
    side: Side | None
    ids: Tensor | None = None
    hidden: Tensor | None = None
    content: Tensor | None = None

    def fits(self, items: int, count: int) -> bool:
        """Whether these are inputs of that many items and positions; a beam search repeats the items."""
        if items % max(self.shape[0], 1):
            return False
        return self.shape[1] == count if self.what == "ids" else self.axis(count) is not None

    def axis(self, count: int) -> Axis | None:
        """The axis of pixels or sound, the same for all items."""
        if self.what == "pixels":
            return patch_axis(self.module, self.shape, count)
        return frame_axis(self.module, self.name, self.shape, count) if self.what == "sound" else None

    def axes(self, count: int, items: int) -> list[Axis] | None:
        """The axis of each item, with its miniature; a beam search repeats the items."""
        axis = self.axis(count)
        if axis is None:
            return None
        contents = [] if self.content is None else list(self.content)
        shown = [axis if i >= len(contents) else miniatures.of_axis(axis, contents[i]) for i in range(self.shape[0])]
        return [shown[i * self.shape[0] // items] for i in range(items)]


@dataclass
class Place:
    """Where a call was captured: the inputs of the modules around it, innermost first, and how many came before."""

    side: Side | None
    inputs: list[InputArgument]
    earlier: int
    items: int
    queries: int


class Inputs:
    """The inputs of one model in one block."""

    def __init__(self, model: nn.Module) -> None:
        self.config: Any = getattr(model, "config", None)
        self.before: list[InputArgument] = []
        self._places: dict[int, list[Place]] = {}
        self._made: dict[Any, list[Axis]] = {}
        self._axes: dict[Any, Axis] = {}

    def see(self, running: Sequence[Running]) -> None:
        """Look at what the modules that are running now were given; each is looked at once."""
        for frame in running:
            if "inputs" not in frame.notes:
                frame.notes["inputs"] = found = input_arguments(frame)
                self.before += found

    def captured(self, steps: Steps, running: Sequence[Running], call: Call) -> None:
        """Remember where a call that was kept came from."""
        inputs = [one for frame in reversed(running) for one in frame.notes.get("inputs", ())]
        place = Place(side_of(running[-1].name), inputs, len(self.before), call.q.shape[0], call.q.shape[2])
        self._places.setdefault(id(steps), []).append(place)

    def label(self, steps: Steps, layer: Layer) -> None:
        """Say of a layer that is complete what its queries and keys are, as far as the inputs tell."""
        places = self._places.get(id(steps), [])
        if not places or not layer.items:
            return
        keys, asked = layer.keys[0].length, sum(place.queries for place in places)
        own = self._own(places, steps, layer.items, asked)
        if layer.kind == "cross":
            seen = self._others(places[0], keys, layer.items)
        else:
            seen = own if asked == keys else None
        if seen is not None:
            layer.keys = seen
        if own is not None:
            ahead = max(keys - asked, 0) if layer.kind == "self" else 0
            rows = None if layer.rows is None else tuple(row - ahead for row in layer.rows)
            layer.queries = own if rows is None else [self._cut(axis, rows) for axis in own]

    def _own(self, places: list[Place], steps: Steps, items: int, asked: int) -> list[Axis] | None:
        """The axes of the queries of all steps of a layer, one after the other."""
        sources = [next((one for one in place.inputs if self._is_own(one, place)), None) for place in places]
        first = sources[0]
        if first is None:
            return None
        if first.what != "ids":
            return self._seen(first, asked, items) if len(sources) == 1 else None
        if any(one is None or one.ids is None for one in sources):
            return None
        moved = any(step.parents is not None for step in steps.steps)
        key = None if moved else tuple(id(one) for one in sources)
        if key is None or key not in self._made:
            ids, hidden, which = [], [], None
            # From the last step back: each item's history is that of the item it came from.
            for one, step in zip(reversed(sources), [*reversed(steps.steps), None], strict=True):
                assert one is not None
                assert one.ids is not None
                ids.append(of_items(spread(one.ids, items), which))
                hidden.append(of_items(spread(hidden_of(one), items), which))
                if step is not None and step.parents is not None:
                    parents = step.parents.cpu()
                    which = parents if which is None else parents[which]
            made = self._tokens(torch.cat(ids[::-1], 1), torch.cat(hidden[::-1], 1))
            if key is None:
                return made
            self._made[key] = made
        return self._made[key]

    @staticmethod
    def _is_own(one: InputArgument, place: Place) -> bool:
        return agree(one.side, place.side) and one.shape[0] == place.items and one.fits(place.items, place.queries)

    def _others(self, place: Place, keys: int, items: int) -> list[Axis] | None:
        """The axes of what a cross-attention looks at: given around it, or to a module that ran before."""
        own = next((one for one in place.inputs if self._is_own(one, place)), None)
        for one in [*place.inputs, *reversed(self.before[: place.earlier])]:
            if one is own or one.side == "decoder" or not one.fits(items, keys):
                continue
            if one.ids is None:
                return self._seen(one, keys, items)
            return self._tokens(spread(one.ids, items), spread(hidden_of(one), items))
        return None

    def _seen(self, one: InputArgument, count: int, items: int) -> list[Axis] | None:
        """The axes of pixels or sound, made once for all layers."""
        key = (id(one), count, items)
        if key not in self._made:
            found = one.axes(count, items)
            if found is None:
                return None
            self._made[key] = found
        return self._made[key]

    def _tokens(self, ids: Tensor, hidden: Tensor) -> list[Axis]:
        """The axis of every item of a batch of ids, in the words of the model's tokenizer where that is at hand."""
        return [self._item(tuple(row), tuple(hide)) for row, hide in zip(ids.tolist(), hidden.tolist(), strict=True)]

    def _item(self, ids: tuple[int, ...], hidden: tuple[bool, ...]) -> Axis:
        if (ids, hidden) not in self._axes:
            name = getattr(self.config, "name_or_path", None)
            axis = in_words(name, ids) if isinstance(name, str) and name else None
            # A tokenizer knows what is content; without one the config's numbers say it.
            special = special_ids(self.config) if axis is None else frozenset()
            known_axis = with_placeholders(ids_axis(ids), self.config) if axis is None else axis
            self._axes[ids, hidden] = with_special(known_axis, special, hidden)
        return self._axes[ids, hidden]

    def _cut(self, axis: Axis, rows: tuple[int, ...]) -> Axis:
        key = (id(axis), rows)
        if key not in self._axes:
            self._axes[key] = axis.select(rows)
        return self._axes[key]


@functools.lru_cache(64)
def in_words(name: str, ids: tuple[int, ...]) -> Axis | None:
    """The tokens of ids in the words of a model's tokenizer; None where there is none, or not for these ids.

    Kept for the next time: a text that is looked at again and again is put into words once.
    """
    tokenizer = tokenizer_at_hand(name)
    return ids_axis(ids, tokenizer) if tokenizer is not None and knows(tokenizer, ids) else None


def input_arguments(frame: Running) -> list[InputArgument]:
    """What a running module was given that says what positions are."""
    names = parameters(cast(Any, type(frame.module)))[1:] if frame.args else ()
    arguments = [*zip(names, frame.args, strict=False), *frame.kwargs.items()]
    found = []
    for name, x in arguments:
        what = what_is(name, x)
        if what is None:
            continue
        side = side_of_argument(frame, name)
        if what != "ids":
            content = miniatures.few(what, x) if known(x) else None
            found.append(InputArgument(what, name, frame.module, tuple(x.shape), side, content=content))
            continue
        ids = x.detach().clone()
        mask = frame.argument(name.replace("input_ids", "attention_mask"))
        hidden = None
        if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] >= ids.shape[1]:
            hidden = mask[:, mask.shape[1] - ids.shape[1] :] == 0
        found.append(InputArgument(what, name, frame.module, tuple(ids.shape), side, ids, hidden))
    return found


def what_is(name: str, x: Any) -> What | None:
    """What an argument says about positions; None for all others."""
    if not isinstance(x, Tensor) or x.is_meta:
        return None
    if x.dtype in (torch.int64, torch.int32):
        return "ids" if x.ndim == 2 and not any(word in name for word in NO_IDS) else None
    if not x.is_floating_point():
        return None
    if name in SOUNDS:
        return "sound"
    picture = x.ndim == 4 and x.shape[1] <= 4 and not any(word in name for word in ("mask", "bias"))
    return "pixels" if name == "pixel_values" or picture else None


def side_of(path: str) -> Side | None:
    """Whose part of a model a module is, by its path."""
    if "decoder" in path:
        return "decoder"
    return "encoder" if "encoder" in path else None


def side_of_argument(frame: Running, name: str) -> Side | None:
    """Whose positions an argument tells."""
    if name.startswith("decoder_") or name == "target":
        return "decoder"
    side = side_of(frame.name)
    if side is None and (name == "source" or is_paired(getattr(frame.module, "config", None))):
        return "encoder"
    return side


def is_paired(config: Any) -> bool:
    """Whether a model has an encoder and a decoder, by its config."""
    return bool(getattr(config, "is_encoder_decoder", False))


def agree(a: Side | None, b: Side | None) -> bool:
    """Whether two sides may be the same."""
    return a is None or b is None or a == b


def spread(x: Tensor, items: int) -> Tensor:
    """Numbers of a batch for a batch of beams: each item stands as often as it has beams."""
    return x.cpu().repeat_interleave(items // max(len(x), 1), 0)


def hidden_of(one: InputArgument) -> Tensor:
    """Which positions of some ids a mask hides; none unless there was one."""
    assert one.ids is not None
    if one.hidden is None or len(one.hidden) != len(one.ids):
        return torch.zeros(one.ids.shape, dtype=torch.bool)
    return one.hidden


def special_ids(config: Any) -> frozenset[int]:
    """The ids that are no content, as a config names them."""
    found = (getattr(config, f"{name}_token_id", None) for name in SPECIAL)
    return frozenset(i for one in found for i in (one if isinstance(one, list) else [one]) if isinstance(i, int))
