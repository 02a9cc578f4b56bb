"""What is asked of all heads of a recording: the methods that `Recording` has beside its heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor

from headscope.errors import LookError
from headscope.look.average import mean
from headscope.look.findings import Patterns, patterns
from headscope.look.head import Head
from headscope.look.positions import Positions
from headscope.look.table import Table
from headscope.recording import through_layers
from headscope.recording.head_table import empty_layers, missed_modules, totals_of
from headscope.recording.layer import Layer
from headscope.recording.through_layers import RolloutLayer
from headscope.recording.token_times import TokenTimes, token_times


class RecordingLooks(ABC):
    """Statistics over the heads of a recording, exact and, unless a matrix is asked for, in O(N) memory."""

    layers: Sequence[Layer]
    missed: Sequence[tuple[str, str, str]]
    alignment_heads: tuple[tuple[int, int], ...]
    _patterns: tuple[list[object], Patterns] | None = None

    @abstractmethod
    def __getitem__(self, which: tuple[int, int] | tuple[int, int, int]) -> Head:
        """One head of one batch item."""

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[int, int, Head]]:
        """Every head of the first batch item, with its layer and head number."""

    @property
    def numbers(self) -> list[int]:
        """The number of each layer: the model's, unless a module was called more than once; then positions."""
        numbers = [layer.number for layer in self.layers]
        distinct = len(set(numbers)) == len(numbers) and min(numbers, default=0) >= 0
        return numbers if distinct else list(range(len(numbers)))

    def _position(self, number: int) -> int:
        return among(f"recording: layer {number}", number, self.numbers)

    def heads(self) -> Table:
        """One row for each head with the mean of every measure over all batch items; prints, sorts and filters.

        The columns are those of `headscope.look.measures.MEASURES`, as far as they mean something here.

        Example:
            >>> import torch, headscope as hs
            >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
            >>> with hs.record(layer) as recording:
            ...     _ = layer(torch.ones(1, 4, 8))
            >>> print(recording.heads()[:1])
            layer  head  entropy  concentration  confidence  previous   self   next  first
                0     0    1.386          0.250       0.250     0.250  0.250  0.250  0.250
        """
        table = totals_of(zip(self.numbers, self.layers, strict=True)).table()
        table.notes = (*empty_layers(self.numbers, self.layers), *missed_modules(self.missed))
        return table

    def mean(
        self,
        layers: int | Sequence[int] | None = None,
        heads: int | Sequence[int] | None = None,
        items: int | Sequence[int] | None = None,
    ) -> Head:
        """The mean of heads over layers, heads and batch items, as a head that every look, page and figure takes.

        Every text counts from its own beginning, without its padding, whatever its length; packed documents count one
        by one. For texts of several recordings: `hs.look.mean(head for recording in them for *_, head in recording)`.

        Memory: the mean as a whole, queries x keys in float32, and the weights of one head beside it.

        Args:
            layers, heads, items: the model's numbers; all unless chosen.

        Raises:
            LookError: one does not exist; self- and cross-attention together; more than 2²⁶ weights.

        Example:
            >>> import torch, headscope as hs
            >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
            >>> with hs.record(layer) as recording:
            ...     _ = layer(torch.ones(3, 4, 8))
            >>> recording.mean(layers=0).row(0).tolist()
            [0.25, 0.25, 0.25, 0.25]
        """
        return mean(
            self[number, head, item]
            for number in listed(layers, self.numbers)
            for head in listed(heads, self.layers[self._position(number)].head_numbers)
            for item in listed(items, range(self.layers[self._position(number)].items))
        )

    def rollout(self, chosen: Positions = None, *, item: int = 0) -> Tensor:
        """For chosen positions of the last layer, where what is there came from in the input: `(chosen, positions)`.

        Self- and joint attention over as many positions as the last such layer has: of an encoder-decoder model the
        decoder's. `rollout_layers` says which these are. See `headscope.look.rollout`.

        Raises:
            LookError: no such layer was recorded, or a position that does not exist.
        """
        return through_layers.rolled_out(self.numbers, self.layers, chosen, item)

    def rollout_layers(self) -> list[RolloutLayer]:
        """For each recorded layer whether `rollout` and `relevance` use it, and why not where they do not.

        Example:
            >>> import torch, headscope as hs
            >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
            >>> with hs.record(layer) as recording:
            ...     _ = layer(torch.ones(1, 4, 8))
            >>> recording.rollout_layers()
            [RolloutLayer(layer=0, name='self_attn', used=True, why='')]
        """
        return through_layers.rollout_layers(self.numbers, self.layers)

    def relevance(self, target: Tensor, chosen: Positions = None, *, item: int = 0) -> Tensor:
        """How much each input position mattered for a number that the model computed: `(chosen, positions)`.

        The recording must be made with `hs.record(model, grad=True)`, and the target from what the model returned in
        the block: `recording.relevance(logits[0, label], 0)` are the relevances for what is read at [CLS]. The same
        layers count as in `rollout`. See `headscope.look.relevance`.

        Args:
            target: one number in the graph of autograd.
            chosen: positions of the last layer; all of them unless chosen.

        Raises:
            LookError: the recording has no graph, the target is not one number of it, or no layer counts.

        Source: Chefer et al. 2021, "Generic Attention-model Explainability".
        """
        return through_layers.relevance_of(self.numbers, self.layers, target, chosen, item)

    def gradient_times_weights(self, target: Tensor, layer: int, head: int, *, item: int = 0) -> Float[Tensor, "q k"]:
        """Gradient times attention, `p_ij · ∂target/∂p_ij`: by how much each weight raised a number, to first order.

        Memory: all weights of the head. The recording must be made with `hs.record(model, grad=True)`.

        Raises:
            LookError: no such head, the recording has no graph, or the target is not one number of it.
        """
        found = self.layers[self._position(layer)]
        row = among(f"recording: head {head} of layer {layer}", head, found.head_numbers)
        return through_layers.gradient_times_weights(found, row, target, item)

    def token_times(self, *, heads: Sequence[tuple[int, int]] | None = None, item: int = 0) -> TokenTimes:
        """When every token and every word of a speech model with a decoder was spoken, from its cross-attention.

        Dynamic time warping over the mean of some heads, each frame standardised over the tokens and smoothed by a
        median: the path from the first frame to the last along which tokens and frames only go forward. A token's row
        is that of the position before it, which wrote it; silence that fills the sound up is left out.

        Args:
            heads: `(layer, head)` by the numbers of the recording. Unless given, those that the model names
                (`generation_config.alignment_heads`), or else up to six whose weights rise most with the tokens: a
                correlation of token and frame of 0.5 or more.

        Raises:
            LookError: no cross-attention from tokens to frames of sound, only special tokens, a head that is not
                there, or no head that rises.

        Source: Radford et al. 2022; Sakoe & Chiba 1978.

        Example:
            >>> import torch, headscope as hs
            >>> from headscope.recording.recording import Layer, Recording
            >>> q, k = 9 * torch.eye(3)[None, None], torch.eye(3).repeat_interleave(4, 0)[None, None]
            >>> texts = [hs.Axis.tokens(["good", "morning", "all"])]
            >>> layer = Layer("", "cross", q, k, None, None, 1.0, queries=texts, keys=[hs.Axis.frames(12, 0.1)])
            >>> print(Recording([layer]).token_times())
              0.00 to   0.40 s  good
              0.40 to   0.80 s  morning
              0.80 to   1.20 s  all
        """
        return token_times(list(zip(self.numbers, self.layers, strict=True)), self.alignment_heads, heads, item)

    def patterns(self) -> Patterns:
        """What each head of the first batch item does, in plain words, with evidence; the most informative first."""
        # The terminal, a page and a figure ask one after the other. What is found depends on the layers and the axes.
        about = [part for layer in self.layers for part in (layer, *layer.queries[:1], *layer.keys[:1])]
        if self._patterns is None or list(map(id, self._patterns[0])) != list(map(id, about)):
            self._patterns = about, patterns(self)
        return self._patterns[1]


def listed(chosen: int | Sequence[int] | None, every: Sequence[int]) -> Sequence[int]:
    """What was chosen, as a list; everything unless chosen."""
    return every if chosen is None else [chosen] if isinstance(chosen, int) else chosen


def among(what: str, number: int, numbers: Sequence[int]) -> int:
    """The position of a number among those that were recorded; negative ones count from the end.

    Raises:
        LookError: it is not there.
    """
    if number < 0 and -len(numbers) <= number:
        return len(numbers) + number
    if number in numbers:
        return list(numbers).index(number)
    whole = list(numbers) == list(range(len(numbers)))
    there = (
        f"there are {len(numbers)}, from 0 to {len(numbers) - 1}"
        if whole
        else f"recorded were {', '.join(map(str, numbers))}"
    )
    raise LookError(f"{what} does not exist; {there}.")
