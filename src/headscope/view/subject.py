"""What is looked at: a recording, or one head as a recording of one layer; and which head of it is shown first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from headscope.errors import LookError
from headscope.look.findings import SHORT, Finding
from headscope.look.head import Head
from headscope.look.table import Table
from headscope.recording.recording import Layer, Recording, among
from headscope.recording.token_times import TokenTimes


class Start(NamedTuple):
    """The head that is shown first, by its place in the recording, and the query whose row is."""

    layer: int
    head: int
    query: int


class Subject:
    """A recording with all that every view needs of it.

    Attributes:
        what: the function that was called, for messages.
        single: whether it is one head alone, so that there is no grid of heads to show.
        described: whether headlines, findings and statistics of the heads are wanted.
        findings: what the heads do, the most informative first.
    """

    def __init__(self, what: str, x: object, *, findings: bool = True) -> None:
        self.what, self.single = what, isinstance(x, Head)
        if isinstance(x, Head):
            self.recording = alone(x)
        elif isinstance(x, Recording):
            self.recording = x
        else:
            raise LookError(
                f"{what}: given a {type(x).__name__}; give a recording, or one head of it: recording[layer, head]."
            )
        if not self.layers:
            raise LookError(
                f"{what}: the recording has no layers; run the model inside hs.record(model) and show that."
            )
        for number, layer in zip(self.recording.numbers, self.layers, strict=True):
            if not (layer.q.numel() and layer.k.numel()):
                raise LookError(
                    f"{what}: layer {number} has {layer.items} items, {layer.heads} heads, {layer.q.shape[2]} queries "
                    f"and {layer.k.shape[2]} keys; there is nothing to see unless there is at least one of each."
                )
        self.described = findings
        self.findings: Sequence[Finding] = self.recording.patterns() if findings else ()

    @cached_property
    def measures(self) -> Table:
        """The statistics of every head, one row each."""
        return self.recording.heads()

    @cached_property
    def times(self) -> TokenTimes | None:
        """When the tokens were spoken, where tokens look at sound and a head moves along with them."""
        if not (self.described and any(layer.keys[0].kind == "frames" for layer in self.layers)):
            return None
        try:
            return self.recording.token_times()
        except LookError:
            return None

    @property
    def missed(self) -> tuple[tuple[str, str, str], ...]:
        """The modules that looked like attention and were not seen: path, class, reason."""
        return tuple(getattr(self.recording, "missed", ()))

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers in the order in which they were called."""
        return self.recording.layers

    def place(self, layer: int, head: int) -> tuple[int, int]:
        """Where a head stands in the recording, by the model's numbers of its layer and itself.

        Raises:
            LookError: a layer or a head that does not exist.
        """
        at = self.place_of_layer(layer)
        return at, among(f"{self.what}: head {head} of layer {layer}", head, self.layers[at].head_numbers)

    def place_of_layer(self, layer: int) -> int:
        """Where a layer stands in the recording, by the model's number of it."""
        return among(f"{self.what}: layer {layer}", layer, self.recording.numbers)

    def start(self, layer: int | None = None, head: int | None = None) -> Start:
        """The head that was asked for, or the one that a finding leads to, or the first.

        In a short text that is the head with the most informative pair of tokens; in a long one, where one pair of
        thousands says little, the head of the first finding.

        Raises:
            LookError: a layer or a head that does not exist.
        """
        if layer is not None:
            layer = self.recording.numbers[self.place_of_layer(layer)]
        short = max(layer.q.shape[2] for layer in self.layers) <= SHORT
        ranked = sorted(self.findings, key=lambda finding: finding.kind != "pair") if short else self.findings
        best = next((f for f in ranked if layer in (None, f.layer) and head in (None, f.head)), None)
        layer = layer if layer is not None else best.layer if best else self.recording.numbers[0]
        at = self.recording.numbers.index(layer)
        head = head if head is not None else best.head if best else self.layers[at].head_numbers[0]
        place = self.place(layer, head)
        return Start(*place, self._query(*place))

    def _query(self, at: int, row: int) -> int:
        """The query that a finding about this head names, or the one in the middle of what is not special."""
        layer, head = self.recording.numbers[at], self.layers[at].head_numbers[row]
        about = [finding for finding in self.findings if (finding.layer, finding.head) == (layer, head)]
        if self.layers[at].q.shape[2] > SHORT:
            about = about[:1]  # what a head does on average is not told by the row of its strangest pair
        for finding in about:
            if "query" in finding.evidence:
                return int(finding.evidence["query"])
        content = [i for i, special in enumerate(self.layers[at].queries[0].special) if not special] or [0]
        return content[len(content) // 2]


def head_names(layers: Sequence[Layer]) -> list[str]:
    """The numbers over the columns of a grid: the model's, unless the layers have different ones; then places."""
    first = layers[0].head_numbers
    same = all(layer.head_numbers == first for layer in layers)
    return [str(number) for number in (first if same else range(max(layer.heads for layer in layers)))]


def alone(head: Head) -> Recording:
    """A recording that holds one head."""
    q, k = len(head.q), len(head.k)
    same = head.queries.kind == head.keys.kind and head.queries.labels == head.keys.labels[max(k - q, 0) :]
    layer = Layer(
        name="",
        kind="self" if same else "cross",
        q=head.q[None, None],
        k=head.k[None, None],
        v=None,
        runs=None if head.mask is None else head.mask.runs(q, k, head.q.device),
        scale=head.scale,
        softcap=head.softcap,
        bias=None if head.bias is None else head.bias.block(slice(0, q), 0, k, q, k),
        sinks=head.sinks,
        queries=[head.queries],
        keys=[head.keys],
    )
    return Recording([layer])
