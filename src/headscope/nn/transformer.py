"""The encoder, the decoder, and the Transformer of the paper, composed of parts."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from headscope.attention.bias import Bias
from headscope.attention.masks.mask import Mask
from headscope.attention.masks.window import causal
from headscope.errors import ShapeError
from headscope.nn.block import DecoderLayer, EncoderLayer, uses_positions
from headscope.nn.cache import KeyValueCache
from headscope.nn.convertible import check_apart, checked, copied, each_once
from headscope.nn.embedding import Embedding
from headscope.nn.intact import intact
from headscope.nn.movable import Movable


class Encoder(Movable):
    """Encoder layers one after the other, and a norm where there is one.

    Shapes:
        x `(b, n, m)` → `(b, n, m)`.

    Source: Vaswani et al. 2017, §3.1.
    """

    def __init__(self, layers: Iterable[EncoderLayer], norm: nn.Module | None = None) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm

    def forward(
        self,
        x: Float[Tensor, "b n m"],
        *,
        mask: Mask | None = None,
        bias: Bias | None = None,
        positions: Shaped[Tensor, "*at"] | None = None,
    ) -> Float[Tensor, "b n m"]:
        """Every layer in turn, all with the same mask, bias and positions."""
        check_use("Encoder", positions, self)
        for layer in self.layers:
            x = layer(x, mask=mask, bias=bias, positions=positions)
        return x if self.norm is None else self.norm(x)

    @classmethod
    def from_torch(cls, encoder: nn.Module) -> Encoder:
        """The same encoder with the same weights, from torch's.

        It takes `(batch, positions, width)` whatever `batch_first` was there. Positions that are padding have numbers
        here; torch's nested fast path (`enable_nested_tensor`) writes zeros there before the last norm.

        Raises:
            ModelError: another kind of module; methods, hooks or parametrizations of its own, here or in a layer;
                layers that share a part.

        Example:
            >>> import torch, headscope as hs
            >>> theirs = nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 24, batch_first=True), 3).eval()
            >>> ours, x = Encoder.from_torch(theirs), torch.randn(2, 5, 6)
            >>> hidden = torch.tensor([[False] * 5, [False, False, True, True, True]])
            >>> real = ~hidden[..., None]
            >>> difference = ours(x, mask=hs.padding([5, 2])) - theirs(x, src_key_padding_mask=hidden)
            >>> bool((difference * real).abs().max() < 1e-5)
            True
        """
        theirs = checked(encoder, nn.TransformerEncoder, "the encoder")
        layers = each_once(theirs.layers, EncoderLayer.from_torch)
        return cls(layers, copied(theirs.norm, "the norm")).train(theirs.training)


class Decoder(Movable):
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
        positions: Shaped[Tensor, "*at"] | None = None,
    ) -> Float[Tensor, "b n m"]:
        """Every layer in turn. `mask` is causal unless given; a mask that is given stands in its place."""
        check_use("Decoder", positions, self)
        mask = CAUSAL if mask is None else mask
        with intact(cache):
            for layer in self.layers:
                x = layer(x, memory, mask=mask, memory_mask=memory_mask, bias=bias, cache=cache, positions=positions)
            return x if self.norm is None else self.norm(x)

    @classmethod
    def from_torch(cls, decoder: nn.Module) -> Decoder:
        """The same decoder with the same weights, from torch's.

        It takes `(batch, positions, width)` whatever `batch_first` was there. It is causal unless a mask is given;
        torch's sees everything then, which is `mask=hs.window(None, None)` here.

        Raises:
            ModelError: another kind of module; methods, hooks or parametrizations of its own, here or in a layer;
                layers that share a part.

        Example:
            >>> import torch, headscope as hs
            >>> theirs = nn.TransformerDecoder(nn.TransformerDecoderLayer(6, 2, 24, batch_first=True), 3).eval()
            >>> ours, x, memory = Decoder.from_torch(theirs), torch.randn(2, 5, 6), torch.randn(2, 7, 6)
            >>> bool((ours(x, memory, mask=hs.window(None, None)) - theirs(x, memory)).abs().max() < 1e-5)
            True
        """
        theirs = checked(decoder, nn.TransformerDecoder, "the decoder")
        layers = each_once(theirs.layers, DecoderLayer.from_torch)
        return cls(layers, copied(theirs.norm, "the norm")).train(theirs.training)


def check_use(where: str, positions: Tensor | None, *parts: nn.Module | None) -> None:
    """Raise `ShapeError` when positions are given and nothing has a use for them."""
    if positions is None or any(part is not None and has_positions(part) for part in parts):
        return
    raise ShapeError(
        f"{where}: positions were given and nothing in this model has any; make its layers with rotary=…, or its "
        "embedding with positions=…."
    )


def has_positions(part: nn.Module) -> bool:
    """Whether an embedding or a layer has positions."""
    return part.positions is not None if isinstance(part, Embedding) else uses_positions(part)


# One object, so that the layers and steps of a model find its runs made already.
CAUSAL = causal()


class Transformer(Movable):
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
        >>> model(target=torch.tensor([[1, 2, 3]]), source=torch.tensor([[4, 5, 6, 7, 8]])).shape
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
        *by_place: Shaped[Tensor, "b k *s"] | None,
        source: Shaped[Tensor, "b k *s"] | None = None,
        mask: Mask | None = None,
        source_mask: Mask | None = None,
        cache: KeyValueCache | None = None,
        positions: Shaped[Tensor, "*at"] | None = None,
        source_positions: Shaped[Tensor, "*at"] | None = None,
    ) -> Float[Tensor, "b n _"]:
        """Read the source, then write.

        Args:
            by_place: nothing; a source without its name is an error, since `nn.Transformer` takes it first.
            source: what the encoder reads.
            mask: among the positions of the target; causal unless given.
            source_mask: who may see what of the source, in the encoder and from the decoder: `hs.padding(lengths)`.
            cache: of a decoding that goes on.
            positions, source_positions: where the columns of the target and of the source stand, `(n,)` or `(b, n)`;
                one after the other unless given.
        """
        if by_place == (None,) or (len(by_place) == 1 and by_place[0] is target and source is None):
            source = source if by_place[0] is None else target  # the same tensor twice cannot be swapped
        elif by_place:
            raise ShapeError(
                "Transformer: two tensors were given without names, and torch's nn.Transformer takes them in the other "
                "order, (src, tgt); write model(target=…, source=…)."
            )
        self.check(target, cache, positions)
        memory = None
        if source is not None or self.encoder is not None:
            memory = self.encode(source, source_mask, source_positions)
        return self.decode(target, memory, mask=mask, source_mask=source_mask, cache=cache, positions=positions)

    def check(self, target: Tensor, cache: KeyValueCache | None, positions: Tensor | None = None) -> None:
        """Raise `ShapeError` when the target cannot be embedded, or nothing has a use for the positions."""
        if self.target is not None:
            self.target.check(target, 0 if cache is None else cache.seen, positions)
        check_use("Transformer", positions, self.target, self.decoder)

    def encode(
        self,
        source: Shaped[Tensor, "b k *m"] | None,
        mask: Mask | None = None,
        positions: Shaped[Tensor, "*at"] | None = None,
    ) -> Float[Tensor, "b k m"]:
        """The memory: what the encoder makes of the source."""
        if self.encoder is None:
            raise ShapeError("Transformer: a source was given and this model has no encoder; leave the source out.")
        if source is None:
            raise ShapeError("Transformer: no source was given and this model has an encoder; give source=…")
        if self.source is not None:
            self.source.check(source, 0, positions)
        check_use("Transformer", positions, self.source, self.encoder)
        vectors = source if self.source is None else self.source(source, positions=positions)
        positions = positions if uses_positions(self.encoder) else None
        return self.encoder(vectors, mask=mask, positions=positions)  # type: ignore[no-any-return]

    def decode(
        self,
        target: Shaped[Tensor, "b n *m"],
        memory: Float[Tensor, "b k m"] | None = None,
        *,
        mask: Mask | None = None,
        source_mask: Mask | None = None,
        cache: KeyValueCache | None = None,
        positions: Shaped[Tensor, "*at"] | None = None,
    ) -> Float[Tensor, "b n _"]:
        """What the decoder writes after the target, with the memory of the encoder."""
        self.check(target, cache, positions)
        first: int | Tensor = 0
        with intact(cache):
            if cache is not None:
                first, positions = cache.begin(self, target.shape[1], positions, target.device)
            x = target if self.target is None else self.target(target, first, positions=positions)
            if cache is not None or not uses_positions(self.decoder):
                positions = None  # the cache has them for the layers
            x = self.decoder(x, memory, mask=mask, memory_mask=source_mask, cache=cache, positions=positions)
            return x if self.output is None else self.output(x)  # type: ignore[no-any-return]

    @classmethod
    def from_torch(cls, model: nn.Module) -> Transformer:
        """The same model with the same weights, from torch's; between vectors, as that one is.

        It takes `(batch, positions, width)` whatever `batch_first` was there; its decoder is causal unless
        a mask is given.

        Raises:
            ModelError: the model has parts of another kind than torch's own, or parts that share a parameter.

        Example:
            >>> import torch, headscope as hs
            >>> theirs = nn.Transformer(8, 2, 1, 1, 16, batch_first=True).eval()
            >>> ours, x, y = Transformer.from_torch(theirs), torch.randn(1, 5, 8), torch.randn(1, 3, 8)
            >>> mask = nn.Transformer.generate_square_subsequent_mask(3)
            >>> bool((ours(target=y, source=x) - theirs(x, y, tgt_mask=mask)).abs().max() < 1e-5)
            True
        """
        theirs = checked(model, nn.Transformer, "the model")
        check_apart((theirs.encoder, theirs.decoder))
        encoder, decoder = Encoder.from_torch(theirs.encoder), Decoder.from_torch(theirs.decoder)
        return cls(decoder, encoder).train(theirs.training)
