"""What was recorded: layers of heads, and what their positions are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor, nn

from headscope.characters import sentence
from headscope.errors import LookError, RecordingError
from headscope.look.axis import Axis
from headscope.look.head import Head
from headscope.recording.axes.tokens import Side, Spans, label
from headscope.recording.folder import reader, writer
from headscope.recording.layer import Layer
from headscope.recording.output_projection import output_projection
from headscope.recording.ranks.gather import Part, assembled, gathered
from headscope.recording.ranks.share import Rank
from headscope.recording.recording_looks import RecordingLooks, among
from headscope.recording.unseen import Missed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

__all__ = ["Layer", "Recording", "among", "load"]


class Recording(RecordingLooks):
    """The heads of a model, as they were in the forward passes of a block.

    `recording[layer, head]` is the `Head` of the first batch item, `recording[layer, head, item]` of another one. The
    numbers are the model's own: where only some layers or heads were selected, the others do not exist. Layers stand in
    the order in which they were called; a second forward pass in the same block follows the first.

    Attributes:
        layers: the recorded layers.
        model: the name of the model's class, and where it was loaded from when that is known.
        rank: which of several processes recorded this part; None for a whole recording. See `gather`.
        missed: attention that ran in the block and was not captured, each with its module's path, class and the reason.
        alignment_heads: the heads that a speech model names for the times of its words, each a layer of its decoder and
            a head (`generation_config.alignment_heads`); see `token_times`.
    """

    def __init__(
        self,
        layers: Sequence[Layer] = (),
        model: str = "",
        rank: Rank | None = None,
        missed: Sequence[Missed] = (),
        alignment_heads: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.layers = layers if not isinstance(layers, tuple) else list(layers)
        self.model = model
        self.rank = rank
        self.missed: Sequence[Missed] = missed
        self.alignment_heads = tuple(alignment_heads)

    def __repr__(self) -> str:
        heads = sum(len(layer.head_numbers) for layer in self.layers)
        part = "" if self.rank is None else f", {self.rank}"
        missed = f", {len(self.missed)} attention modules missed" if self.missed else ""
        return f"Recording({sentence(self.model) or 'a model'}: {len(self.layers)} layers, {heads} heads{missed}{part})"

    def __getitem__(self, which: tuple[int, int] | tuple[int, int, int]) -> Head:
        number, head, item = (*which, 0) if len(which) == 2 else which
        layer = self.layers[self._position(number)]
        row = among(f"recording: head {head} of layer {number}", head, layer.head_numbers)
        if not layer.items:
            raise LookError(f"recording: layer {number} is empty: it was recorded with a batch of 0 items.")
        if not -layer.items <= item < layer.items:
            raise LookError(
                f"recording: item {item} does not exist in layer {number}; there are {layer.items}, from 0 to "
                f"{layer.items - 1}."
            )
        return layer.head(row, item % layer.items)

    def __iter__(self) -> Iterator[tuple[int, int, Head]]:
        """Every head of the first batch item, with its layer and head number."""
        for number, layer in zip(self.numbers, self.layers, strict=True):
            for row, head in enumerate(layer.head_numbers if layer.items else ()):
                yield number, head, layer.head(row)

    @property
    def axes(self) -> list[tuple[Axis, Axis]]:
        """For each layer what the queries and the keys of the first batch item are; set with `tokens`."""
        return [(layer.queries[0], layer.keys[0]) for layer in self.layers]

    def tokens(
        self,
        texts: Sequence[str] | Axis | None = None,
        *,
        ids: Sequence[int] | Tensor | None = None,
        spans: Spans | None = None,
        special: Sequence[bool] | None = None,
        tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        item: int = 0,
        side: Side | None = None,
    ) -> Recording:
        """Say what the positions of a batch item are: give their texts, or ids and a tokenizer. Returns the recording.

        Much is known without: what a model was given in the block says which ids its positions have, which patches of
        a picture or which seconds of sound they are, and a tokenizer that lies beside the model gives the words. With
        a tokenizer alone, every position whose id is known gets its words from that one.

        Every axis of the item that has as many positions gets the tokens: queries and keys of self-attention, and in an
        encoder-decoder model the keys of cross-attention with the encoder, its queries with the decoder.

        Args:
            texts: a text for each token, or an `Axis` that is ready; or the whole text, with its tokenizer.
            ids: token ids; with a tokenizer they are enough.
            spans: for each token its characters in the source text.
            special: for each token whether it is no content; asked of the tokenizer where one is given.
            tokenizer: turns ids into texts; or a processor that holds one.
            item: which batch item.
            side: in an encoder-decoder model, whose tokens these are.

        Raises:
            LookError: no axis has that many positions, or both sides have and `side` was not given.

        Example:
            >>> import torch, headscope as hs
            >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
            >>> with hs.record(layer) as recording:
            ...     _ = layer(torch.ones(1, 2, 8))
            >>> recording.tokens(["good", "morning"])[0, 1].keys.labels
            ('good', 'morning')
        """
        label(self.layers, texts, ids=ids, spans=spans, special=special, tokenizer=tokenizer, item=item, side=side)
        return self

    def output_projection(self, model: nn.Module, layer: int, head: int) -> Float[Tensor, "e m"]:
        """W_O of a head: the rows of its layer's output projection, found in the model that was recorded.

        For `head.value_weighted(W_O)`: how much of the output every weight really carries.

        Raises:
            LookError: there is no such layer, or it was recorded without values.
            ModelError: the model is another one, or no output projection is found beside the attention.

        Example:
            >>> import torch, headscope as hs
            >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
            >>> with hs.record(layer) as recording:
            ...     _ = layer(torch.ones(1, 4, 8))
            >>> recording[0, 1].value_weighted(recording.output_projection(layer, 0, 1)).shape
            torch.Size([4, 4])
        """
        return output_projection(model, self.layers[self._position(layer)], head)

    def gather(self) -> Recording:
        """The one recording that the parts of all ranks make: call it on every rank, and each gets the whole.

        Ranks that share the heads of a model (tensor parallelism) give their heads, in the model's numbers; ranks with
        batches of their own (FSDP, data parallelism) give their batch items, one rank after the other, and where they
        had the same batch it counts once. Everything is in the memory of every rank afterwards: for large recordings,
        save on every rank and `hs.load` the folder. A recording that is whole already is returned as it is.

        Raises:
            RecordingError: the ranks do not fit together; raised on all of them.
        """
        if self.rank is None:
            return self
        layers, missed = gathered(self.layers, self.rank, self.missed)
        return Recording(layers, self.model, missed=missed, alignment_heads=self.alignment_heads)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the recording to a folder `NAME.headscope`, whole or not at all, and return its path.

        The part of one of several processes goes to `NAME/rank-00000.headscope` and so on; `hs.load(NAME)` gives the
        one recording that they make.

        Raises:
            RecordingError: the folder exists and `overwrite` is False, or it cannot be written.
        """
        about = self.model, self.rank, self.missed, self.alignment_heads
        return writer.save(self.layers, Path(path), *about, overwrite=overwrite)


def load(path: str | Path | Sequence[str | Path]) -> Recording:
    """Open a recording that was saved: headers are read and checked now, a layer's numbers when someone looks at it.

    Args:
        path: a recording's folder; or the folder in which several processes saved their parts, or these parts' folders
            one by one, which give the one recording.

    Raises:
        RecordingError: no recording, or one that is damaged, altered or of a newer format; parts that do not fit
            together.
    """
    if not isinstance(path, str | Path):
        return together([Path(one) for one in path], "hs.load")
    parts = reader.parts_in(Path(path))
    return together(parts, str(path)) if parts else Recording(*reader.load(Path(path)))


def together(paths: Sequence[Path], what: str) -> Recording:
    """One recording from the folders of all ranks."""
    opened = [(path, reader.load(path)) for path in paths]
    alone = next((path for path, content in opened if content.rank is None), None)
    if alone is not None or not opened:
        raise RecordingError(
            f"{what}: {alone or 'an empty list'} is not the part of one of several processes; give the folders "
            "that every rank saved, or one whole recording by itself."
        )
    parts = [Part(str(path), one.rank, one.layers) for path, one in opened if one.rank is not None]
    missed = tuple(dict.fromkeys(module for _, content in opened for module in content.missed))
    first = opened[0][1]
    return Recording(assembled(parts, what), first.model, missed=missed, alignment_heads=first.alignment_heads)
