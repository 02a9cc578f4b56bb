"""The parts of several ranks -> one recording: heads side by side, batch items one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from headscope.attention.bias import Line
from headscope.attention.masks.runs import Runs
from headscope.errors import RecordingError
from headscope.recording.folder.stored_layer import StoredLayer
from headscope.recording.layer import Layer
from headscope.recording.lazy_layer import TENSORS, LazyLayer
from headscope.recording.ranks.share import Rank
from headscope.recording.unseen import Missed

HEADS, ITEMS = 1, 0
SAME = ("name", "kind", "scale", "softcap", "number", "rows", "source")


class Part(NamedTuple):
    """What one rank recorded; `where` says in messages where it came from."""

    where: str
    rank: Rank
    layers: Sequence[Layer]


class JoinedLayer(LazyLayer):
    """A layer whose parts lie elsewhere; they are put together when somebody looks."""

    def __init__(self, parts: Sequence[Layer], axis: int) -> None:
        self._parts, self._axis = parts, axis
        self._opened: dict[str, Any] | None = None
        first = parts[0]
        for name in SAME:
            setattr(self, name, getattr(first, name))
        self.queries, self.keys = list(first.queries), list(first.keys)
        self.head_numbers = first.head_numbers
        if axis == HEADS:
            self.head_numbers = sum((part.head_numbers for part in parts), ())
        else:
            self.queries = [one for part in parts for one in part.queries]
            self.keys = [one for part in parts for one in part.keys]

    @property
    def heads(self) -> int:
        """How many query heads were recorded."""
        return len(self.head_numbers)

    @property
    def items(self) -> int:
        """How many batch items were recorded."""
        return len(self.queries)

    def opened(self) -> dict[str, Any]:
        """The tensors of all parts, put together."""
        if self._opened is None:
            self._opened = joined(self._parts, self._axis)
            self._parts = ()
        return self._opened


def assembled(parts: Sequence[Part], what: str) -> list[Layer]:
    """The layers of one recording from those of every rank.

    Ranks that shared out the heads of the model give their heads, in the model's numbers. Of those, and of all others,
    batch items follow one another in the order of the ranks; ranks that recorded the same give it once.

    Raises:
        RecordingError: a rank is missing or comes twice, or their layers do not fit together.
    """
    present(parts, what)
    by_rank = {part.rank.number: part for part in parts}
    groups = sorted({part.rank.group for part in parts})
    members = [number for group in groups for number in group]
    if sorted(members) != sorted(by_rank):
        raise RecordingError(
            f"{what}: the ranks do not agree on who shares heads with whom: {', '.join(map(str, groups))}; these are "
            "recordings of different runs."
        )
    copies = [heads_of([by_rank[number] for number in group], what) for group in groups]
    for group, layers in zip(groups, copies, strict=True):
        fit(copies[0], layers, by_rank[groups[0][0]], by_rank[group[0]], what, ("heads",))
    distinct = [copies[0], *(copy for copy in copies[1:] if not all(map(alike, copies[0], copy)))]
    if len(distinct) == 1:
        return copies[0]
    return [JoinedLayer(layers, ITEMS) for layers in zip(*copies, strict=True)]


def present(parts: Sequence[Part], what: str) -> None:
    """Raise `RecordingError` unless every rank is there once."""
    of = {part.rank.of for part in parts}
    if len(of) != 1:
        raise RecordingError(
            f"{what}: ranks of runs with {' and '.join(map(str, sorted(of)))} processes lie together: "
            f"{', '.join(part.where for part in parts)}; give those of one run."
        )
    numbers = [part.rank.number for part in parts]
    twice = next((number for number in numbers if numbers.count(number) > 1), None)
    if twice is not None:
        raise RecordingError(f"{what}: rank {twice} is there {numbers.count(twice)} times; give each rank once.")
    missing = sorted(set(range(of.pop())) - set(numbers))
    if missing:
        raise RecordingError(
            f"{what}: rank {', '.join(map(str, missing))} of {parts[0].rank.of} is missing; what is there is "
            f"{', '.join(part.where for part in parts)}. Record and save on every rank, or load the part of one rank."
        )


def heads_of(parts: Sequence[Part], what: str) -> list[Layer]:
    """The layers of ranks that shared out the heads among them; those with none of the chosen heads have no layers."""
    filled = [part for part in parts if part.layers] or parts[:1]
    for part in filled[1:]:
        fit(filled[0].layers, part.layers, filled[0], part, what, ("items", "queries", "keys"))
    layers = []
    for same in zip(*(part.layers for part in filled), strict=True):
        if all(layer.head_numbers == same[0].head_numbers for layer in same):
            layers.append(same[0])  # a layer that was not cut
            continue
        numbers = [number for layer in same for number in layer.head_numbers]
        if len(set(numbers)) != len(numbers):
            raise RecordingError(
                f"{what}: layer {same[0].name!r} has the heads {numbers} on ranks that share them; each head belongs "
                "to one rank."
            )
        layers.append(JoinedLayer(sorted(same, key=lambda layer: layer.head_numbers), HEADS))
    return layers


def fit(ours: Sequence[Layer], theirs: Sequence[Layer], a: Part, b: Part, what: str, equal: Sequence[str]) -> None:
    """Raise `RecordingError` unless two ranks recorded the same layers, alike but for heads or items."""
    if [layer.name for layer in ours] != [layer.name for layer in theirs]:
        raise RecordingError(
            f"{what}: {a.where} has {len(ours)} layers and {b.where} has {len(theirs)}, or others; record the same "
            "calls on every rank."
        )
    for one, other in zip(ours, theirs, strict=True):
        sizes = [(layer.queries[0].length, layer.keys[0].length) for layer in (one, other)]
        if sizes[0] != sizes[1]:
            raise RecordingError(
                f"{what}: layer {one.name!r} has {sizes[0][0]} queries and {sizes[0][1]} keys on {a.where}, and "
                f"{sizes[1][0]} and {sizes[1][1]} on {b.where}; pad the batches of all ranks to one length, or look at "
                "the ranks one by one."
            )
        for name in (*SAME, *equal):
            if getattr(one, name) != getattr(other, name):
                raise RecordingError(
                    f"{what}: {name} of layer {one.name!r} differs between {a.where} and {b.where}; these ranks did "
                    "not run the same model on the same input."
                )


def alike(a: Layer, b: Layer) -> bool:
    """Whether two ranks recorded the same, bit for bit: copies of one model on the same batch."""
    if a.queries != b.queries or a.keys != b.keys or a.head_numbers != b.head_numbers:
        return False
    if isinstance(a, StoredLayer) and isinstance(b, StoredLayer):
        return a.digest == b.digest
    return torch.equal(a.q, b.q) and torch.equal(a.k, b.k)


def joined(parts: Sequence[Layer], axis: int) -> dict[str, Any]:
    """The tensors of several layers, put together along the items or the heads."""
    counts = [part.heads if axis == HEADS else part.items for part in parts]
    tensors: dict[str, Any] = {"q": torch.cat([part.q for part in parts], axis)}
    ks, vs = [part.k for part in parts], [part.v for part in parts]
    shares = [part.heads // k.shape[1] for part, k in zip(parts, ks, strict=True)]
    shared = axis == HEADS and all(k.shape[1] == 1 and torch.equal(k, ks[0]) for k in ks)
    for name, xs in (("k", ks), ("v", vs)):
        if any(x is None for x in xs):
            tensors[name] = None
        elif shared:
            tensors[name] = xs[0]  # one group for all heads, which every rank has
        else:
            if axis == HEADS and len(set(shares)) > 1:
                xs = [x.repeat_interleave(share, 1) for x, share in zip(xs, shares, strict=True) if x is not None]
            tensors[name] = torch.cat(xs, axis)  # type: ignore[arg-type]
    tensors["runs"] = joined_runs([part.runs for part in parts], axis, counts, ks[0].shape[2])
    tensors["by_offset"] = joined_lines([part.by_offset for part in parts], axis, counts)
    biases = [None] * len(parts) if tensors["by_offset"] is not None else [bias_of(part) for part in parts]
    tensors["bias"] = joined_bias(biases, axis, counts)
    sinks = [part.sinks for part in parts if part.sinks is not None]
    tensors["sinks"] = None if not sinks else torch.cat(sinks) if axis == HEADS else sinks[0]
    lse = [part.lse for part in parts if part.lse is not None]
    tensors["lse"] = torch.cat(lse, axis) if len(lse) == len(parts) else None
    return tensors


def joined_runs(parts: Sequence[Runs | None], axis: int, counts: Sequence[int], keys: int) -> Runs | None:
    """The runs of several parts; None allows everything."""
    if all(runs is None for runs in parts):
        return None
    whole_row = torch.tensor([[[[0]]]], dtype=torch.int32)
    filled = [Runs(whole_row, whole_row + keys) if runs is None else runs for runs in parts]
    most = max(runs.start.shape[3] for runs in filled)

    def side(which: int) -> Tensor:
        padded = [torch.nn.functional.pad(runs[which], (0, most - runs[which].shape[3])) for runs in filled]
        return side_by_side(padded, axis, counts)

    start, stop = side(0), side(1)
    sizes = torch.broadcast_shapes(start.shape, stop.shape)  # type: ignore[no-untyped-call]
    return Runs(start.expand(sizes), stop.expand(sizes))


def joined_lines(parts: Sequence[Tensor | None], axis: int, counts: Sequence[int]) -> Tensor | None:
    """The biases by offset of several parts; None where they are not one number for each offset together.

    What no item of one part sees, and is 0 there, an item of another one may see.
    """
    lines = [line for line in parts if line is not None]
    if len(lines) < len(parts):
        return None
    if all(line.shape == lines[0].shape and torch.equal(line, lines[0]) for line in lines):
        return lines[0] if axis != HEADS or len(lines[0]) == 1 else torch.cat(lines)
    return torch.cat([line.expand(n, -1) for line, n in zip(lines, counts, strict=True)]) if axis == HEADS else None


def bias_of(layer: Layer) -> Tensor | None:
    """The bias of a layer with four axes; None adds nothing."""
    if layer.by_offset is None:
        return layer.bias
    queries, keys = layer.q.shape[2], layer.k.shape[2]
    return Line(layer.by_offset, keys).block(slice(0, queries), 0, keys, queries, keys)


def joined_bias(parts: Sequence[Tensor | None], axis: int, counts: Sequence[int]) -> Tensor | None:
    """The biases of several parts; None adds nothing."""
    some = next((bias for bias in parts if bias is not None), None)
    if some is None:
        return None
    return side_by_side([some.new_zeros(1, 1, 1, 1) if bias is None else bias for bias in parts], axis, counts)


def side_by_side(tensors: Sequence[Tensor], axis: int, counts: Sequence[int]) -> Tensor:
    """Tensors with four axes along one of them, where a tensor may stand for all; the same one stays as it is."""
    if all(x.shape[axis] == 1 and torch.equal(x, tensors[0]) for x in tensors):
        return tensors[0]
    sizes = [max(x.shape[i] for x in tensors) for i in range(4)]
    wide = [x.expand(*sizes[:axis], count, *sizes[axis + 1 :]) for x, count in zip(tensors, counts, strict=True)]
    return torch.cat(wide, axis)


def gathered(
    layers: Sequence[Layer], rank: Rank, missed: Sequence[Missed] = ()
) -> tuple[list[Layer], tuple[Missed, ...]]:
    """One recording from the parts of all ranks of the running process group, on every one of them.

    With the attention that any of them did not capture.
    """
    outlines: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(outlines, (rank, [without_tensors(layer) for layer in layers], tuple(missed)))
    # Everybody checks the same things, so that an error is raised by all and nobody waits for the others.
    assembled([Part(str(number), number, few) for number, few, _ in outlines], "recording.gather")
    most = max(len(few) for _, few, _ in outlines)
    columns: list[list[Layer]] = [[] for _ in outlines]
    for position in range(most):
        mine = plain_layer(layers[position]) if position < len(layers) else None
        all_of: list[Any] = [None] * len(outlines)
        dist.all_gather_object(all_of, mine)
        for column, layer in zip(columns, all_of, strict=True):
            if layer is not None:
                column.append(layer)
    parts = [Part(str(number), number, column) for (number, *_), column in zip(outlines, columns, strict=True)]
    every = tuple(dict.fromkeys(module for *_, modules in outlines for module in modules))
    return [plain_layer(layer) for layer in assembled(parts, "recording.gather")], every


def plain_layer(layer: Layer) -> Layer:
    """A layer with its tensors in memory, on the CPU."""
    values = {field.name: getattr(layer, field.name) for field in fields(Layer)}
    for name, x in values.items():
        if isinstance(x, Tensor):
            values[name] = x.detach().cpu()
    if layer.runs is not None:
        values["runs"] = layer.runs.to("cpu")
    return Layer(**values)


def without_tensors(layer: Layer) -> Layer:
    """What of a layer is checked before its tensors travel."""
    values = {field.name: getattr(layer, field.name) for field in fields(Layer) if field.name not in TENSORS}
    empty = torch.empty(layer.items, layer.heads, 0, 0)
    return Layer(**values, q=empty, k=empty[:, :1], v=None, runs=None)
