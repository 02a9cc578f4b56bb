"""The statistics of one head: the methods that `Head` has beside its weights."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from headscope.attention.request import Request
from headscope.errors import LookError
from headscope.look import copies, norms, statistics
from headscope.look.axis import Axis
from headscope.look.kernels.ask import Ask
from headscope.look.kernels.gather import chosen
from headscope.look.kernels.stream import stream
from headscope.look.positions import Positions, positions
from headscope.look.pyramid import CELLS, Level, Pyramid, pyramid, row_lse, tile
from headscope.look.sequences import Sequences
from headscope.look.top import Top


class Looks(ABC):
    """Statistics of the weights of a head, exact and in O(N) memory; the same as functions are in `hs.look`.

    Means and sums over queries leave out padding, and "previous" and "next" are meant within each sequence.
    """

    v: Tensor | None
    queries: Axis
    keys: Axis

    @property
    @abstractmethod
    def call(self) -> Request:
        """The attention call of this head alone, in float32 or better and without gradients."""

    @property
    @abstractmethod
    def sequences(self) -> Sequences:
        """Which queries and keys are content, and which sequence each belongs to."""

    @property
    @abstractmethod
    def known_lse(self) -> Float[Tensor, " q"] | None:
        """The lse of every query where it is at hand, without computing it."""

    @abstractmethod
    def weights(self, queries: Positions = None, keys: Positions = None) -> Float[Tensor, "rows columns"]:
        """The exact attention weights of the chosen queries and keys."""

    def entropy(self) -> Float[Tensor, " q"]:
        """How spread every query's weights are: `-Σ_j p_ij log p_ij`, in nats; 0 for a query that may see nothing.

        Source: Clark et al. 2019, "What Does BERT Look At?".
        """
        return statistics.entropy(self.call)[0, 0]

    def concentration(self) -> Float[Tensor, " q"]:
        """`Σ_j p_ij²` of every query: 1 when one key has all the weight; its inverse is how many keys it really has."""
        return statistics.concentration(self.call)[0, 0]

    def received(self) -> Float[Tensor, " k"]:
        """How much weight every key gets from all queries together: `Σ_i p_ij`, padding left out.

        Source: the column sums behind attention sinks, Xiao et al. 2023.
        """
        found = statistics.received(self.sequences.request(self.call))[0, 0]
        return self.sequences.over_keys(found, self.keys.length)

    def offsets(self, n: int = 16) -> Float[Tensor, " offsets"]:
        """The mean weight at each offset from the own position, `-n … n`: number `n + δ` is the mean of `p_{i,i+δ}`.

        A key counts when it is of the query's own sequence; padding is neither a query nor a neighbour.

        Raises:
            LookError: n is negative, or the head has one query only.

        Source: Clark et al. 2019; Voita et al. 2019.
        """
        return statistics.offsets(self.call, n, self.sequences if self.sequences.same else None)[0, 0]

    def top(self, n: int) -> Top:
        """The `n` largest weights of every query and their keys.

        Raises:
            LookError: n is below 1 or above the number of keys.
        """
        found = statistics.top(self.call, n)
        return Top(found.weights[0, 0], found.keys[0, 0])

    def heatmap(self, size: int = 256, how: str = "mean") -> Float[Tensor, "rows columns"]:
        """The weights as a picture of at most `size` x `size` cells: the "mean" or the "max" of each cell.

        Raises:
            LookError: size is below 1, or how is neither "mean" nor "max".
        """
        return statistics.heatmap(self.call, size, how)[0, 0]

    def tile(self, z: int, x: int, y: int) -> Level:
        """One tile of the map of the head: up to 256 x 256 cells, each with the mean and the largest of its weights.

        Computed from the queries and keys of the tile alone, and, where no lse is known yet, all keys for its queries.

        Args:
            z: the zoom; a cell pools `2^z x 2^z` weights, so 0 is the finest.
            x, y: which tile, counted along the keys and along the queries.

        Shapes:
            mean, max, seen `(rows, columns)`; 256 x 256 but for the last tiles.

        Raises:
            LookError: there is no such zoom or no such tile.

        Example:
            >>> from headscope.look.head import Head
            >>> head = Head(torch.zeros(300, 2), torch.zeros(300, 2))
            >>> head.tile(1, 0, 0).mean.shape, head.tile(0, 1, 1).mean.shape
            (torch.Size([150, 150]), torch.Size([44, 44]))
        """
        call = self.call
        known = self.known_lse

        def lse(rows: slice) -> Tensor:
            return row_lse(call, rows) if known is None else known[rows]

        with torch.no_grad():
            return tile(call, z, x, y, lse)

    def pyramid(self, cells: int = CELLS) -> Pyramid:
        """The map of the head at every zoom at which it has at most `cells` cells on a side, in one pass.

        Raises:
            LookError: cells is below 256.

        Example:
            >>> from headscope.look.head import Head
            >>> pyramid = Head(torch.zeros(600, 2), torch.zeros(600, 2)).pyramid(cells=300)
            >>> pyramid.base, pyramid.top, pyramid.level(1).mean.shape, pyramid.tile(2, 0, 0).mean.shape
            (1, 2, torch.Size([300, 300]), torch.Size([150, 150]))
        """
        with torch.no_grad():
            return pyramid(self.call, cells)

    def project(self, W: Float[Tensor, "rows e"]) -> Float[Tensor, "q e"]:
        """`P W`: any numbers that belong to the keys, averaged with each query's weights.

        Raises:
            LookError: W has not one row for each key.
        """
        return statistics.project(self.call, W)[0, 0]

    def special(self) -> Float[Tensor, " q"]:
        """The weight of every query on special keys: [CLS], [SEP], padding, class tokens.

        Raises:
            LookError: the keys are plain positions, so nothing marks special ones.

        Source: Clark et al. 2019.
        """
        if self.keys.kind == "positions":
            raise LookError(
                "special: the keys of this head are plain positions; say what they are with "
                "recording.tokens(...), or keys=hs.Axis.tokens(..., special=...)."
            )
        return self.project(torch.tensor(self.keys.special, dtype=self.call.q.dtype)[:, None])[:, 0]

    def confidence(self) -> float:
        """The mean over the queries of the largest weight, special queries and keys left out.

        Source: Voita et al. 2019, "Analyzing Multi-Head Self-Attention".
        """
        found = self.sequences
        special = torch.tensor(self.keys.special, dtype=torch.bool)[found.keys]
        peak = stream(found.request(self.call), Ask(peak=True, leave_out=special.nonzero()[:, 0])).peak
        assert peak is not None
        ordinary = peak[0, 0].cpu()[~torch.tensor(self.queries.special, dtype=torch.bool)[found.rows]]
        return float(ordinary.mean()) if len(ordinary) else 0.0

    def duplicates(self) -> Float[Tensor, " q"]:
        """The weight of every query on earlier copies of its own token; 0 where the token is new.

        Raises:
            LookError: queries or keys are no tokens.

        Source: Wang et al. 2022, duplicate token heads.
        """
        return self._copies(0)

    def induction(self) -> Float[Tensor, " q"]:
        """The weight of every query on the token after an earlier copy of its own token; 0 where the token is new.

        Raises:
            LookError: queries or keys are no tokens.

        Source: Olsson et al. 2022, induction heads.
        """
        return self._copies(1)

    def value_weighted(
        self, W_O: Float[Tensor, "size m"] | None = None, queries: Positions = None, keys: Positions = None
    ) -> Float[Tensor, "rows columns"]:
        """`‖p_ij · v_j W_O‖`: how much of the output every weight really carries.

        A weight on a key whose value is nearly zero carries nothing, as on many [SEP] tokens.

        Args:
            W_O: the rows of the output projection that belong to this head, `(e, m)`; v itself is measured without it.
            queries, keys: as in `weights`.

        Raises:
            LookError: the head has no values, or W_O does not fit them.

        Source: Kobayashi et al. 2020, "Attention is Not Only a Weight".
        """
        size = norms.norms(self.v, W_O)
        return self.weights(queries, keys) * size[positions("key", keys, len(size)).to(size.device)]

    def _copies(self, after: int) -> Tensor:
        found = self.sequences
        places = copies.places(self.queries, self.keys, found)
        request = found.request(self.call)
        lse = statistics.lse(request)
        mass = copies.mass(lambda rows, keys: chosen(request, lse, rows, keys)[0, 0], places, lse[0, 0], after=after)
        return found.over_queries(mass, self.queries.length)
