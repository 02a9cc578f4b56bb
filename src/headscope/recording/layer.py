"""One recorded attention call: a layer of heads, and what its positions are."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.attention.bias import Bias, DenseBias, Line
from headscope.attention.masks.mask import Intervals
from headscope.attention.masks.runs import Runs
from headscope.attention.request import Request
from headscope.calls.kinds import Kind
from headscope.look.axis import Axis
from headscope.look.head import Head
from headscope.look.kernels.ask import Seen
from headscope.look.overview import overview
from headscope.look.scoring import Scoring
from headscope.look.sequences import Sequences, sequences_of
from headscope.shapes import acc_dtype

Source = Literal["call", "weights"]


@dataclass(eq=False, repr=False)
class Layer:
    """One attention call of a model, for every batch item and every head.

    Shapes:
        q `(b, h, q, d)`, k `(b, g, k, d)`, v `(b, g, k, e)`, runs `(b|1, h|1, q|1, r)`, bias `(b|1, h|1, q|1, k|1)`,
        by_offset `(h|1, q + k - 1)`, sinks `(h,)`, lse `(b, h, q)`.

    Attributes:
        name: the path of the module that called attention, as in `model.named_modules()`.
        kind: "self" when queries and keys come from the same positions, "joint" when these are several sequences one
            behind the other (text and picture), else "cross".
        queries, keys: what the positions are; one axis for each batch item.
        number: which attention layer of the model this is, counted in the order of their first calls; -1 where unknown.
        head_numbers: the model's numbers of the heads; all of them, from 0, unless some were selected.
        rows: the positions of the recorded queries; None for all.
        source: "call" when q and k are those of the model; "weights" when the model computed its weights by itself, and
            they were recorded as `bias = log weights` beside a q and k of zeros.
        output: what the call returned, `(b, h, q, e)` in the graph of autograd, where it was recorded with grad=True.
    """

    name: str
    kind: Kind
    q: Tensor
    k: Tensor
    v: Tensor | None
    runs: Runs | None
    scale: float
    softcap: float | None = None
    bias: Tensor | None = None
    sinks: Tensor | None = None
    lse: Tensor | None = None
    queries: list[Axis] = field(default_factory=list)
    keys: list[Axis] = field(default_factory=list)
    number: int = -1
    head_numbers: tuple[int, ...] = ()
    rows: tuple[int, ...] | None = None
    source: Source = "call"
    by_offset: Tensor | None = None
    output: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.queries:
            count = self.q.shape[2]
            axis = plain(count) if self.rows is None else plain(max(self.rows, default=-1) + 1).select(self.rows)
            self.queries = [axis] * len(self.q)
        if not self.keys:
            self.keys = [plain(self.k.shape[2])] * len(self.q)
        if not self.head_numbers:
            self.head_numbers = tuple(range(self.heads))

    def __repr__(self) -> str:
        return (
            f"Layer({self.name!r}, {self.kind}: {self.items} items, {self.heads} heads, {self.q.shape[2]} queries x "
            f"{self.k.shape[2]} keys, {str(self.q.dtype).removeprefix('torch.')})"
        )

    # What was found of batch items at the first look: their lse; and, as long as their axes stay, what rests on these.
    @functools.cached_property
    def _found(self) -> dict[int, Tensor]:
        return {}

    @functools.cached_property
    def _sequences(self) -> dict[int, tuple[Axis, Axis, Sequences]]:
        return {}

    @functools.cached_property
    def _overviews(self) -> dict[int, tuple[Axis, Axis, Seen]]:
        return {}

    @property
    def heads(self) -> int:
        """How many query heads were recorded."""
        return self.q.shape[1]

    @property
    def items(self) -> int:
        """How many batch items were recorded."""
        return self.q.shape[0]

    def of_rows(self, rows: tuple[int, ...]) -> Layer:
        """The layer with only some of its recorded queries, by their positions."""
        have = {row: i for i, row in enumerate(self.rows or ())}
        at = [have[row] for row in rows]
        runs = self.runs and Runs(*(side if side.shape[2] == 1 else side[:, :, at] for side in self.runs))
        bias = self.bias if self.bias is None or self.bias.shape[2] == 1 else self.bias[:, :, at]
        return self.changed(q=self.q[:, :, at], runs=runs, bias=bias, rows=rows, queries=[], lse=None)

    def changed(self, **fields_: Any) -> Layer:
        """A layer with other values of some fields, in memory."""
        return Layer(
            **{one.name: fields_[one.name] if one.name in fields_ else getattr(self, one.name) for one in fields(Layer)}
        )

    def head(self, head: int, item: int = 0) -> Head:
        """One of the recorded heads of one batch item, as a lens; heads are counted from 0 here."""
        group = head // (self.heads // self.k.shape[1])
        return RecordedHead(
            self,
            item,
            head,
            self.q[item, head],
            self.k[item, group],
            None if self.v is None else self.v[item, group],
            **self.scoring(slice(item, item + 1), slice(head, head + 1))._asdict(),
            queries=self.queries[item],
            keys=self.keys[item],
            lse=None if self.lse is None else self.lse[item, head],
        )

    def item_lse(self, item: int) -> Float[Tensor, "h q"]:
        """The lse of every head of one batch item: computed at the first look, then kept."""
        if self.lse is not None:
            return self.lse[item]
        if item not in self._found:
            one, every = slice(item, item + 1), slice(0, self.heads)
            dtype = acc_dtype(self.q.dtype)
            q, k = self.q[one].to(dtype), self.k[one].to(dtype)
            with torch.no_grad():
                self._found[item] = self.scoring(one, every).lse(q, k)[0]
        return self._found[item]

    def request(self, item: int) -> Request:
        """The attention call of one batch item, all heads, as the looks take it."""
        one = slice(item, item + 1)
        return self.scoring(one, slice(0, self.heads)).request(self.q[one], self.k[one])

    def sequences(self, item: int) -> Sequences:
        """Which queries and keys of one batch item are content, and which sequence each belongs to."""
        axes = self.queries[item], self.keys[item]
        known = self._sequences.get(item)
        if known is None or known[0] is not axes[0] or known[1] is not axes[1]:
            runs = self.request(item).runs()
            known = self._sequences[item] = *axes, sequences_of(runs, *axes)
        return known[2]

    def overview(self, item: int) -> Seen:
        """What one pass over all weights of one batch item finds of every head: made at the first look, then kept."""
        found = self.known_overview(item)
        if found is None:
            axes = self.queries[item], self.keys[item]
            found = overview(self.request(item), *axes, self.sequences(item))
            self._overviews[item] = *axes, found
        return found

    def known_overview(self, item: int) -> Seen | None:
        """That of an earlier look at any head of the item."""
        queries, keys, found = self._overviews.get(item, (None, None, None))
        return found if queries is self.queries[item] and keys is self.keys[item] else None

    def scoring(self, items: slice, heads: slice) -> Scoring:
        """Mask, bias, scale, softcap and sinks of some items and heads."""

        def part(x: Tensor) -> Tensor:
            x = x if x.shape[0] == 1 else x[items]
            return x if x.shape[1] == 1 else x[:, heads]

        mask = None if self.runs is None else Intervals(Runs(*map(part, self.runs)), self.k.shape[2])
        bias: Bias | None = None if self.bias is None else DenseBias(part(self.bias))
        if self.by_offset is not None:
            bias = Line(self.by_offset.expand(self.heads, -1)[heads], self.k.shape[2])
        sinks = None if self.sinks is None else self.sinks[heads]
        return Scoring(mask, bias, self.scale, self.softcap, sinks)


@functools.lru_cache(64)
def plain(count: int) -> Axis:
    """Plain positions, the same object for all layers."""
    return Axis.positions(count)


class RecordedHead(Head):
    """A head of a recording: the lse is found once for all the heads of its layer, and kept there."""

    def __init__(self, layer: Layer, item: int, row: int, *tensors: Any, **options: Any) -> None:
        super().__init__(*tensors, **options)
        self._layer, self._item, self._row = layer, item, row

    @property
    def lse(self) -> Float[Tensor, " q"]:
        """The natural log of the sum of exponentiated scores of every query; minus infinity where it sees nothing."""
        return self._layer.item_lse(self._item)[self._row]

    @property
    def known_lse(self) -> Float[Tensor, " q"] | None:
        """That of the recording, or of an earlier look at any head of the layer."""
        found = self._layer.lse[self._item] if self._layer.lse is not None else self._layer._found.get(self._item)
        return None if found is None else found[self._row]

    @property
    def sequences(self) -> Sequences:
        """Those of the batch item: what another head of the layer sees belongs together, too."""
        return self._layer.sequences(self._item)

    @property
    def overview(self) -> Seen:
        """That of the batch item, whose heads share one pass."""
        return self._layer.overview(self._item).of_head(self._row)
