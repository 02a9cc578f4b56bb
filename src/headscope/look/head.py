"""One head as a lens: q, k, v and who sees whom. Any weight is `exp(score - lse)`, computed when someone looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.attention.bias import Bias
from headscope.attention.masks.mask import Mask
from headscope.attention.masks.runs import Runs
from headscope.attention.request import Request
from headscope.errors import LookError, ShapeError
from headscope.look import own_weights, words
from headscope.look.axis import Axis
from headscope.look.kernels import gather
from headscope.look.kernels.ask import Seen
from headscope.look.looks import Looks
from headscope.look.overview import overview
from headscope.look.positions import Positions, positions
from headscope.look.scoring import Scoring
from headscope.look.sequences import Sequences, sequences_of
from headscope.shapes import acc_dtype, shape


class Head(Looks):
    """One attention head that can be looked into: O(N·d) numbers that stand for all N x N weights.

    Shapes:
        q `(q, d)`, k `(k, d)`, v `(k, e)`; lse `(q,)`.

    Args:
        mask: who may attend to whom, as in `hs.attend`.
        bias: added to the scores, with one batch item and one head.
        scale: multiplies the scores; `1/√d` unless given.
        softcap: bounds the scores, as in `hs.attend`.
        sinks: one logit in the denominator, a tensor with one element.
        queries, keys: what the positions are; plain positions unless given.
        lse: the log of the sum of exponentiated scores of each query, where it is at hand; else it is computed once.

    Raises:
        ShapeError: q, k and v do not fit together, or an axis has another length.

    Example:
        >>> head = Head(torch.eye(2), torch.eye(2), queries=Axis.tokens(["a", "b"]))
        >>> [round(w, 2) for w in head.row(0).tolist()]
        [0.67, 0.33]
    """

    def __init__(
        self,
        q: Float[Tensor, "q d"],
        k: Float[Tensor, "k d"],
        v: Float[Tensor, "values e"] | None = None,
        *,
        mask: Mask | None = None,
        bias: Bias | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        sinks: Float[Tensor, "1"] | None = None,
        queries: Axis | None = None,
        keys: Axis | None = None,
        lse: Float[Tensor, " q"] | None = None,
    ) -> None:
        if q.ndim != 2 or k.ndim != 2 or q.shape[1] != k.shape[1]:
            raise ShapeError(
                f"Head: q is {shape(q)} and k is {shape(k)}; "
                "give one head's (queries, size) and (keys, size), of the same size."
            )
        if v is not None and (v.ndim != 2 or len(v) != len(k)):
            raise ShapeError(f"Head: v is {shape(v)} and k is {shape(k)}; give one value for each key.")
        self.q, self.k, self.v, self.mask, self.bias = q, k, v, mask, bias
        self.scale = scale if scale is not None else 1.0 / math.sqrt(q.shape[1])
        self.softcap, self.sinks = softcap, sinks
        if queries is None:
            queries = keys if keys is not None and keys.length == len(q) else Axis.positions(len(q))
        if keys is None:
            keys = queries if queries.length == len(k) else Axis.positions(len(k))
        for name, axis, count in (("queries", queries, len(q)), ("keys", keys, len(k))):
            if axis.length != count:
                raise ShapeError(
                    f"Head: the axis of the {name} has {axis.length} positions and there are {count} {name}; "
                    "give one label for each."
                )
        self.queries, self.keys = queries, keys
        self._lse = lse

    @classmethod
    def from_weights(
        cls,
        P: Any,
        *,
        queries: Axis | None = None,
        keys: Axis | None = None,
        sinks: bool = False,
    ) -> Head:
        """A matrix of weights as a head, for every look, page and figure: of another library, or a mean.

        Args:
            P: one head's weights, `(q, k)`: a tensor, or anything that `torch.as_tensor` takes.
            queries, keys: what the positions are; plain positions unless given.
            sinks: rows may sum to less than 1; the rest went to a sink that is not among the keys.

        Raises:
            LookError: P is not a matrix, or a row is not one of weights: 0 or more, and 1 (or 0) in sum.

        Example:
            >>> head = Head.from_weights(torch.tensor([[1.0, 0.0], [0.25, 0.75]]))
            >>> [round(w, 2) for w in head.row(1).tolist()]
            [0.25, 0.75]
        """
        P = own_weights.checked(P, sinks=sinks)
        q, k = P.new_zeros(len(P), 1), P.new_zeros(P.shape[1], 1)
        return cls(q, k, **own_weights.scoring_of(P, sinks=sinks)._asdict(), queries=queries, keys=keys)

    def __repr__(self) -> str:
        return f"Head({len(self.q)} {self.queries.kind} x {len(self.k)} {self.keys.kind}, d={self.q.shape[1]})"

    @cached_property
    def runs(self) -> Runs:
        """The runs of keys that every query may see; start and stop are `(q, r)`."""
        if self.mask is None:
            stop = torch.full((len(self.q), 1), len(self.k), dtype=torch.int32, device=self.q.device)
            return Runs(torch.zeros_like(stop), stop)
        start, stop = self.mask.runs(len(self.q), len(self.k), self.q.device)
        return Runs(start[0, 0].expand(len(self.q), -1), stop[0, 0].expand(len(self.q), -1))

    @property
    def lse(self) -> Float[Tensor, " q"]:
        """The log of the sum of exponentiated scores of every query; minus infinity where it may see nothing."""
        if self._lse is None:
            with torch.no_grad():
                self._lse = self._scoring.lse(*self._wide)[0, 0]
        return self._lse

    @property
    def known_lse(self) -> Float[Tensor, " q"] | None:
        """The lse of every query where it is at hand, without computing it."""
        return self._lse

    @property
    def sequences(self) -> Sequences:
        """Which queries and keys are content, and which sequence each belongs to."""
        return self._own_sequences

    @cached_property
    def _own_sequences(self) -> Sequences:
        return sequences_of(self.call.runs(), self.queries, self.keys)

    @property
    def overview(self) -> Seen:
        """What one pass over all weights finds for findings, the table of heads and small pictures; made once."""
        return self._own_overview

    @cached_property
    def _own_overview(self) -> Seen:
        return overview(self.call, self.queries, self.keys, self.sequences)

    @property
    def call(self) -> Request:
        """The attention call of this head alone, in float32 or better and without gradients."""
        return self._scoring.request(*self._wide)

    @property
    def stored_call(self) -> Request:
        """The same call with q and k as they were given, of any dtype: for passes that widen a block at a time."""
        return self._scoring.request(self.q.detach()[None, None], self.k.detach()[None, None])

    @property
    def _scoring(self) -> Scoring:
        return Scoring(self.mask, self.bias, self.scale, self.softcap, self.sinks)

    @cached_property
    def _wide(self) -> tuple[Tensor, Tensor]:
        """q and k with axes of batch and head, in float32 or better: weights are never computed in less."""
        dtype = acc_dtype(self.q.dtype)
        return self.q.detach().to(dtype)[None, None], self.k.detach().to(dtype)[None, None]

    def weights(self, queries: Positions = None, keys: Positions = None) -> Float[Tensor, "rows columns"]:
        """The exact attention weights of the chosen queries and keys: every one of them unless chosen.

        Args:
            queries, keys: a position, a slice, a list of positions, or None for all.

        Shapes:
            returns `(chosen queries, chosen keys)`, float32 (float64 for float64).

        Raises:
            LookError: a position that does not exist.
        """
        rows, columns = positions("query", queries, len(self.q)), positions("key", keys, len(self.k))
        with torch.no_grad():
            return gather.chosen(self.call, self.lse[None, None], rows, columns)[0, 0]

    def scores(self, queries: Positions = None, keys: Positions = None) -> Float[Tensor, "rows columns"]:
        """What the softmax is taken of: scale, softcap and bias included; minus infinity where a query sees no key.

        Args:
            queries, keys: as in `weights`.

        Raises:
            LookError: a position that does not exist.

        Example:
            >>> Head(2 * torch.eye(2), torch.eye(2), scale=0.5).scores(0).tolist()
            [[1.0, 0.0]]
        """
        rows, columns = positions("query", queries, len(self.q)), positions("key", keys, len(self.k))
        with torch.no_grad():
            return gather.scores(self.call, rows, columns)[0, 0]

    def row(self, query: int) -> Float[Tensor, " k"]:
        """The weights of one query over all keys."""
        return self.weights(query)[0]

    def column(self, key: int) -> Float[Tensor, " q"]:
        """The weight of every query on one key."""
        return self.weights(None, key)[:, 0]

    def values(self) -> Float[Tensor, "q e"]:
        """The head's output before the output projection: the values, averaged with the weights.

        Raises:
            LookError: the head has no values.
        """
        if self.v is None:
            raise LookError(
                "values: this head was recorded without its values; record with values=True, or give v to hs.Head."
            )
        q, k = self._wide
        with torch.no_grad():
            return self._scoring.values(q, k, self.v.detach().to(q.dtype)[None, None])[0, 0]

    def words(self, numbers: Sequence[int] | None = None) -> Head:
        """The head between words instead of pieces of words: weights are summed over keys and averaged over queries.

        Words are what touches in the text, or what the marks of the tokenizer join: WordPiece (##), byte-level BPE (Ġ),
        SentencePiece (▁) and others. Special tokens and punctuation stand alone, padding is left out.

        Memory: words x words, as a whole.

        Args:
            numbers: for each key the number of its word, where nothing else says it.

        Raises:
            LookError: nothing says which tokens make a word, or there is not one number for each key.

        Source: Clark et al. 2019, §4.1.

        Example:
            >>> axis = Axis.tokens(["snow", "##ball", "melts"])
            >>> Head(torch.zeros(3, 2), torch.zeros(3, 2), queries=axis).words().keys.labels
            ('snowball', 'melts')
        """
        P, queries, keys = words.between_words(self, numbers)
        return Head.from_weights(P, queries=queries, keys=keys, sinks=self.sinks is not None)
