"""The encoder, the decoder, and the Transformer of the paper, composed of parts."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from headscope.attention.bias import Bias
from headscope.attention.masks.mask import Mask
from headscope.attention.masks.window import causal
from headscope.errors import ShapeError
from headscope.nn import from_torch_transformer
from headscope.nn.block import DecoderLayer, EncoderLayer
from headscope.nn.cache import KeyValueCache
from headscope.nn.embedding import Embedding


class Encoder(nn.Module):
    """Encoder layers one after the other, and a norm where there is one.

    Shapes:
        x `(b, n, m)` → `(b, n, m)`.

    Source: Vaswani et al. 2017, §3.1.
    """

    def __init__(self, layers: Iterable[EncoderLayer], norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm

    def forward(
        self, x: Float[Tensor, "b n m"], *, mask: Mask | None = None, bias: Bias | None = None
    ) -> Float[Tensor, "b n m"]:
        """Every layer in turn, all with the same mask and bias."""
        for layer in self.layers:
            x = layer(x, mask=mask, bias=bias)
        return x if self.norm is None else self.norm(x)


class Decoder(nn.Module):
    """Decoder layers one after the other, and a norm where there is one.

    Shapes:
        x `(b, n, m)`, memory `(b, k, kv_dim)` → `(b, n, m)`.

    Source: Vaswani et al. 2017, §3.1.
    """

    def __init__(self, layers: Iterable[DecoderLayer], norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm

    def forward(
        self,
        x: Float[Tensor, "b n m"],
        memory: Float[Tensor, "b k _"] | None = None,
        *,
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
        bias: Bias | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "b n m"]:
        """Every layer in turn. `mask` is causal unless given; a mask that is given stands in its place."""
        mask = CAUSAL if mask is None else mask
        for layer in self.layers:
            x = layer(x, memory, mask=mask, memory_mask=memory_mask, bias=bias, cache=cache)
        return x if self.norm is None else self.norm(x)


# One object, so that the layers and steps of a model find its runs made already.
CAUSAL = causal()


class Transformer(nn.Module):
    """The Transformer: a decoder, with or without an encoder; between tokens and logits, or between vectors.

    Args:
        decoder: what writes.
        encoder: what reads the source; None for a language model.
        target: tokens of the target to vectors; None: the target comes as vectors.
        source: tokens of the source to vectors; None: the source comes as vectors.
        output: vectors to logits; None: the output is the decoder's vectors.

    Shapes:
        target `(b, n)` or `(b, n, m)`, source `(b, k)` or `(b, k, m)` → `(b, n, vocabulary)` or `(b, n, m)`.

    Raises:
        ShapeError: a source without an encoder or an encoder without a source; positions past a table; as the layers.

    Source: Vaswani et al. 2017, figure 1.

    Example:
        >>> import torch
        >>> from headscope.nn.recipes import paper
        >>> model = paper(vocabulary=11, embed_dim=8, num_heads=2, layers=2, hidden_dim=32)
        >>> model(torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 6, 7, 8]])).shape
        torch.Size([1, 3, 11])
    """

    def __init__(
        self,
        decoder: Decoder,
        encoder: Encoder | None = None,
        *,
        target: Embedding | None = None,
        source: Embedding | None = None,
        output: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.source, self.encoder, self.target, self.decoder, self.output = source, encoder, target, decoder, output

    def forward(
        self,
        target: Shaped[Tensor, "b n *m"],
        source: Shaped[Tensor, "b k *s"] | None = None,
        *,
        mask: Mask | None = None,
        source_mask: Mask | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "b n _"]:
        """Read the source, then write.

        Args:
            mask: among the positions of the target; causal unless given.
            source_mask: who may see what of the source, in the encoder and from the decoder: `hs.padding(lengths)`.
            cache: of a decoding that goes on.
        """
        self.check(target, cache)
        memory = self.encode(source, source_mask) if source is not None or self.encoder is not None else None
        return self.decode(target, memory, mask=mask, source_mask=source_mask, cache=cache)

    def check(self, target: Tensor, cache: KeyValueCache | None) -> None:
        """Raise `ShapeError` when the target cannot be embedded."""
        if self.target is not None:
            self.target.check(target, 0 if cache is None else cache.seen)

    def encode(self, source: Shaped[Tensor, "b k *m"] | None, mask: Mask | None = None) -> Float[Tensor, "b k m"]:
        """The memory: what the encoder makes of the source."""
        if self.encoder is None:
            raise ShapeError("Transformer: a source was given and this model has no encoder; leave the source out.")
        if source is None:
            raise ShapeError("Transformer: no source was given and this model has an encoder; give source=…")
        if self.source is not None:
            self.source.check(source, 0)
            source = self.source(source)
        assert source is not None
        return self.encoder(source, mask=mask)  # type: ignore[no-any-return]

    def decode(
        self,
        target: Shaped[Tensor, "b n *m"],
        memory: Float[Tensor, "b k m"] | None = None,
        *,
        mask: Mask | None = None,
        source_mask: Mask | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "b n _"]:
        """What the decoder writes after the target, with the memory of the encoder."""
        self.check(target, cache)
        if self.target is not None:
            first = 0 if cache is None else cache.first_positions(cache.seen, target.device)
            target = self.target(target, first)
        x = self.decoder(target, memory, mask=mask, memory_mask=source_mask, cache=cache)
        return x if self.output is None else self.output(x)  # type: ignore[no-any-return]

    @classmethod
    def from_torch(cls, model: nn.Transformer) -> Transformer:
        """The same model with the same weights, from torch's; between vectors, as that one is.

        It takes `(batch, positions, width)` whatever `batch_first` was there; its decoder is causal unless told.

        Raises:
            ModelError: the model has parts of another kind than torch's own.

        Example:
            >>> import torch, headscope as hs
            >>> theirs = nn.Transformer(8, 2, 1, 1, 16, batch_first=True).eval()
            >>> ours, x, y = Transformer.from_torch(theirs), torch.randn(1, 5, 8), torch.randn(1, 3, 8)
            >>> mask = nn.Transformer.generate_square_subsequent_mask(3)
            >>> bool((ours(y, x) - theirs(x, y, tgt_mask=mask)).abs().max() < 1e-5)
            True
        """
        encoder = Encoder(*from_torch_transformer.encoder(model.encoder))
        decoder = Decoder(*from_torch_transformer.decoder(model.decoder))
        return cls(decoder, encoder).train(model.training)
