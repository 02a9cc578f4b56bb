"""One query of one head, worked through: every number between a text and the output of an attention layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from headscope.errors import LookError, ModelError
from headscope.hf.models import Loaded
from headscope.hf.text import Encoded, run
from headscope.lesson.linear_maps import LinearCall, LinearCalls, Source, merged, output_map, sources
from headscope.look.head import Head
from headscope.recording.layer import Layer
from headscope.recording.recording import Recording
from headscope.recording.session import record
from headscope.view.subject import Subject


@dataclass(frozen=True, eq=False)
class WorkedExample:
    """What one head of a model does for one query of a text, with the model's own numbers.

    Attributes:
        text: what the model read.
        recording: all of its heads.
        layer, head: the model's numbers of the head.
        query: the position whose row is worked out.
        source: the linear maps that q, k and v come from, as far as they were found.
        output: the linear map over the merged heads, W_O, where it was found.
    """

    text: str
    model: str
    recording: Recording
    layer: int
    head: int
    query: int
    source: dict[str, Source]
    output: LinearCall | None

    @cached_property
    def recorded(self) -> Layer:
        """The layer of the head."""
        return self.recording.layers[self.recording.numbers.index(self.layer)]

    @cached_property
    def lens(self) -> Head:
        """The head."""
        return self.recording[self.layer, self.head]

    @property
    def x(self) -> Tensor | None:
        """What the queries are made of, `(n, m)`."""
        return self.source["q"].call.x if "q" in self.source else None

    @property
    def memory(self) -> Tensor | None:
        """What the keys and values are made of, `(n, m)`: x itself in self-attention."""
        return self.source["v"].call.x if "v" in self.source else None

    @cached_property
    def products(self) -> Tensor:
        """q · k of the query with every key, `(k,)`."""
        q, k = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (self.lens.q, self.lens.k))
        return k @ q[self.query]

    @cached_property
    def scores(self) -> Tensor:
        """The scores of the query, `(k,)`: scaled, with all that the model adds; -inf where it may not see."""
        return self.lens.scores(self.query)[0]

    @cached_property
    def largest(self) -> float:
        """The largest score: it is subtracted before exponentiating, so that no number overflows."""
        top = self.scores.max().item()
        return top if self.lens.sinks is None else max(top, self.lens.sinks.item())

    @cached_property
    def exponentials(self) -> Tensor:
        """exp(score - largest score), `(k,)`."""
        return (self.scores - self.largest).exp()

    @cached_property
    def sink(self) -> float:
        """What a learned sink adds to the sum of exponentials; 0 without one."""
        return 0.0 if self.lens.sinks is None else (self.lens.sinks.double() - self.largest).exp().item()

    @cached_property
    def weights(self) -> Tensor:
        """The weights of the query, `(k,)`."""
        return self.lens.row(self.query)

    @cached_property
    def values(self) -> Tensor:
        """The values, averaged with the weights, `(e,)`."""
        return self.lens.values()[self.query]

    @cached_property
    def merged(self) -> Tensor:
        """The values of all heads side by side, `(n, h·e)`."""
        heads = self.recorded.head_numbers
        return merged(torch.stack([self.recording[self.layer, head].values() for head in heads]))

    @cached_property
    def difference(self) -> float | None:
        """The largest difference between the merged heads here and what the model itself gave to W_O."""
        return None if self.output is None else (self.output.x.to(self.merged.dtype) - self.merged).abs().max().item()


def work_out(
    loaded: Loaded,
    encoded: Encoded,
    text: str,
    *,
    layer: int | None = None,
    head: int | None = None,
    token: str | None = None,
) -> WorkedExample:
    """Run a model on a text and work one query of one head through.

    Args:
        layer, head: the most informative head of the model, or of that layer, unless given.
        token: the token whose query it is, as it is written or by its position; the one with the most to say unless
            given.

    Raises:
        LookError: a layer, a head or a token that does not exist.
        ModelError: the layer computes its weights without q and k; or the model fails on the text.
    """
    with record(loaded.model) as recording:
        run(loaded, encoded)
    label(recording, encoded)
    start = Subject("learn", recording).start(layer, head)
    chosen = recording.layers[start.layer]
    number = recording.numbers[start.layer]
    if chosen.source == "weights" or chosen.v is None:
        raise ModelError(
            f"learn: layer {number} of {loaded.name} computes its weights in a way of its own, so that there are no q "
            "and k to show; choose another layer with --layer, or another model."
        )
    with LinearCalls(loaded.model, chosen.name) as linear:
        run(loaded, encoded)
    query = start.query if token is None else position(chosen, token)
    example = WorkedExample(
        text,
        loaded.name,
        recording,
        number,
        chosen.head_numbers[start.head],
        query,
        sources(linear.calls, chosen),
        None,
    )
    found = output_map(linear.calls, example.merged)
    return replace(example, output=found)


def label(recording: Recording, encoded: Encoded) -> None:
    """Say which tokens the positions are."""
    paired = encoded.decoder is not None
    recording.tokens(encoded.axis, side="encoder" if paired else None)
    if encoded.decoder is not None:
        recording.tokens(encoded.decoder, side="decoder")


def position(layer: Layer, token: str) -> int:
    """The place of a query, by its text or its number.

    Raises:
        LookError: there is no such token, or several have that text.
    """
    labels = layer.queries[0].labels
    places = [place for place, text in enumerate(labels) if text.strip() == token.strip()]
    if not places and token.isdecimal() and int(token) < len(labels):
        places = [int(token)]
    if len(places) != 1:
        found = f"stands at {', '.join(map(str, places))}" if places else "is not among them"
        raise LookError(
            f"--token {token!r}: the tokens are {' '.join(labels[:40])}, and this one {found}. "
            f"Give one of them, or a position from 0 to {len(labels) - 1}."
        )
    return places[0]
