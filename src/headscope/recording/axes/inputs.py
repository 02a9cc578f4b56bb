"""What the positions of a recording are, from what the model was given: token ids, pixels, or sound.

Every attention call runs inside of modules, and one of them was given ids, pixels or samples of as many positions as
the call has: the innermost such module says what the positions are. Nothing is computed while the model runs; ids are
copied, and of pixels and sound what a miniature needs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headscope.calls.call import Call
from headscope.calls.modules import Running
from headscope.hf.vocabulary import ids_axis, knows, tokenizer_at_hand, with_placeholders, with_special
from headscope.look.axis import Axis
from headscope.recording.axes.feature_maps import Around, around
from headscope.recording.axes.input_arguments import InputArgument, agree, input_arguments, side_of
from headscope.recording.axes.tokens import Side
from headscope.recording.layer import Layer
from headscope.recording.steps import Steps, of_items

SPECIAL = ("bos", "eos", "pad", "cls", "sep", "decoder_start")


@dataclass
class Place:
    """Where a call was captured: the inputs of the modules around it, innermost first, and how many came before.

    Attributes:
        asking, asked: what these modules say of feature maps with as many positions as there are queries, and keys.
    """

    side: Side | None
    inputs: list[InputArgument]
    earlier: int
    items: int
    queries: int
    asking: Around
    asked: Around


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
        items, queries, keys = call.q.shape[0], call.q.shape[2], call.k.shape[2]
        asking = asked = Around()
        if any(one.what == "pixels" for one in inputs):
            asking, asked = around(running, items, queries), around(running, items, keys)
        side = side_of(running[-1].name)
        if side == "decoder":
            asking = Around()  # its own positions are queries for objects, however many there are
        place = Place(side, inputs, len(self.before), items, queries, asking, asked)
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
            return self._seen(first, asked, items, places[0].asking) if len(sources) == 1 else None
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
        if not agree(one.side, place.side) or not one.fits(place.items, place.queries, place.asking):
            return False
        return one.shape[0] == place.items or (place.asking.windows is not None and one.what == "pixels")

    def _others(self, place: Place, keys: int, items: int) -> list[Axis] | None:
        """The axes of what a cross-attention looks at: given around it, or to a module that ran before."""
        own = next((one for one in place.inputs if self._is_own(one, place)), None)
        for one in [*place.inputs, *reversed(self.before[: place.earlier])]:
            if one is own or one.side == "decoder" or not one.fits(items, keys, place.asked):
                continue
            if one.ids is None:
                return self._seen(one, keys, items, place.asked)
            return self._tokens(spread(one.ids, items), spread(hidden_of(one), items))
        return None

    def _seen(self, one: InputArgument, count: int, items: int, around: Around) -> list[Axis] | None:
        """The axes of pixels or sound, made once for all layers."""
        key = (id(one), count, items, around.windows, around.map_of(count))
        if key not in self._made:
            found = one.axes(count, items, around)
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
