"""`nn.MultiheadAttention` on `hs.attend`: torch's call, torch's state dict, torch's meaning of every argument."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils.rnn import pad_sequence

from headscope.attention.api import attend
from headscope.attention.masks.lengths import padding
from headscope.attention.precision import autocast_dtype
from headscope.attention.with_weights import attend_weights
from headscope.errors import MaskError, ShapeError
from headscope.nn.torch_masks import Masks, Sizes, TorchMaskReader, causal_hint
from headscope.shapes import shape

_read = TorchMaskReader()


class TorchMultiheadAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention`, computed by `hs.attend`: the same constructor, call, parameters and state dict.

    For models that are written for torch's layer; `hs.nn.replace` puts it into one that exists. What differs: a query
    that may see nothing gets zeros, where torch gives NaN; scores are never rounded to half precision; a mask that
    leaves keys out leaves work out; there is no second path in evaluation. A row of a mask that holds nothing but the
    lowest number of its dtype sees nothing, as everywhere in headscope.

    `hs.nn.MultiheadAttention` is the layer for new models: it has masks by name, grouped queries, rotary positions and
    a cache.

    The arguments are those of `nn.MultiheadAttention`.

    Shapes:
        query `(b, q, embed_dim)`, key `(b, k, kdim)`, value `(b, k, vdim)` with `batch_first=True`, batch second
        without it, no batch axis in two axes → output like query; weights `(b, q, k)`, or `(b, h, q, k)` without
        averaging.

    Raises:
        ShapeError: inputs of other widths, batches or lengths.
        MaskError: a mask of another shape or kind, or `is_causal` without the mask that torch needs beside it.

    Source: Vaswani et al. 2017, §3.2.2.

    Example:
        >>> theirs = nn.MultiheadAttention(6, 3, batch_first=True)
        >>> ours, x = TorchMultiheadAttention(6, 3, batch_first=True), torch.randn(2, 5, 6)
        >>> _ = ours.load_state_dict(theirs.state_dict())
        >>> all(bool((a - b).abs().max() < 1e-5) for a, b in zip(ours(x, x, x), theirs(x, x, x)))
        True
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention.forward`: the output, and the weights where they are needed, after dropout."""
        if query.is_nested or key.is_nested or value.is_nested:
            return self._nested(query, key, value, key_padding_mask, attn_mask, need_weights), None
        batched = query.ndim == 3
        self._check(query, key, value)
        if not batched:
            # What is the same tensor stays the same tensor: one projection makes all that comes of it.
            same, twice = key is query, value is key
            query = query[None]
            key = query if same else key[None]
            value = key if twice else value[None]
        batch_first = self.batch_first or not batched
        q, k, v = self._project(query, key, value, batch_first)
        sizes = Sizes(q.shape[0], self.num_heads, q.shape[2], key.shape[1 if batch_first else 0], self._appended())
        k, v = self._append(k, v, sizes)
        masks = self._masks(attn_mask, key_padding_mask, is_causal, need_weights, sizes)
        dropout, weights = self.dropout if self.training else 0.0, None
        if need_weights:
            values, weights = attend_weights(
                q, k, v, mask=masks.mask, bias=masks.bias, dropout=dropout, average=average_attn_weights
            )
            weights = weights[:, 0] if average_attn_weights else weights
            # As torch has it: autocast of a GPU leaves the softmax in float32, that of a CPU does not.
            wide = query.is_cuda and autocast_dtype(query) is not None
            weights = weights if wide else weights.to(q.dtype)
            weights = weights if batched else weights[0]
        else:
            values = attend(q, k, v, mask=masks.mask, bias=masks.bias, dropout=dropout)
        output = self._merge(values, batch_first)
        return output if batched else output[0], weights

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Raise `ShapeError` unless the inputs fit to each other and to this layer."""
        batch = 0 if self.batch_first else 1
        if query.ndim not in (2, 3) or not query.ndim == key.ndim == value.ndim:
            advice = "give all three with three axes, or with two where there is no batch."
        elif (query.shape[-1], key.shape[-1], value.shape[-1]) != (self.embed_dim, self.kdim, self.vdim):
            advice = f"the widths of this layer are embed_dim={self.embed_dim}, kdim={self.kdim}, vdim={self.vdim}."
        elif key.shape[:-1] != value.shape[:-1] or (query.ndim == 3 and query.shape[batch] != key.shape[batch]):
            advice = f"batch_first={self.batch_first}; give one value for each key, and all with the same batch."
        else:
            return
        raise ShapeError(
            f"{type(self).__name__}: query {shape(query)}, key {shape(key)}, value {shape(value)}; {advice}"
        )

    def _project(self, query: Tensor, key: Tensor, value: Tensor, batch_first: bool) -> tuple[Tensor, Tensor, Tensor]:
        """q `(b, h, q, d)`, k and v `(b, h, k, d)`: as few products as there are different inputs."""
        bias: Tensor | None = self.in_proj_bias
        width = self.embed_dim

        def heads(x: Tensor, weight: Tensor, first: int, letters: int) -> list[Tensor]:
            rows = bias if bias is None or letters == 3 else bias[first * width : (first + letters) * width]
            made = F.linear(x, weight, rows)
            # The letters are taken apart before the axes change places: their gradients come together in one copy.
            parts = made.view(*made.shape[:2], letters, self.num_heads, self.head_dim).unbind(2)
            return [part.transpose(1, 2) if batch_first else part.permute(1, 2, 0, 3) for part in parts]

        packed = self.in_proj_weight
        weights: tuple[Tensor, ...] = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self._qkv_same_embed_dim:
            if query is key and key is value:
                q, k, v = heads(query, packed, 0, 3)
                return q, k, v
            if key is value:
                (q,), (k, v) = heads(query, packed[:width], 0, 1), heads(key, packed[width:], 1, 2)
                return q, k, v
            weights = packed[:width], packed[width : 2 * width], packed[2 * width :]
        q, k, v = (
            heads(x, weight, letter, 1)[0]
            for letter, (x, weight) in enumerate(zip((query, key, value), weights, strict=True))
        )
        return q, k, v

    def _appended(self) -> int:
        """How many keys this layer appends to those of its caller."""
        return (self.bias_k is not None) + bool(self.add_zero_attn)

    def _append(self, k: Tensor, v: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Keys and values with the learned ones (`add_bias_kv`), then a key and a value of 0 (`add_zero_attn`)."""
        if self.bias_k is not None and self.bias_v is not None:
            own = (x.view(1, self.num_heads, 1, -1).expand(sizes.batch, -1, -1, -1) for x in (self.bias_k, self.bias_v))
            k, v = (torch.cat((x, more.to(x.dtype)), 2) for x, more in zip((k, v), own, strict=True))
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        return k, v

    def _masks(
        self,
        attn_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        is_causal: bool,
        need_weights: bool,
        sizes: Sizes,
    ) -> Masks:
        """The masks of a call. `is_causal` is a hint about attn_mask, and enough where torch needs no tensor."""
        if is_causal and attn_mask is None:
            raise MaskError(
                f"{type(self).__name__}: is_causal=True without attn_mask; torch takes it as a hint about attn_mask, "
                "so give that too: nn.Transformer.generate_square_subsequent_mask(queries)."
            )
        if is_causal and key_padding_mask is None and not need_weights:
            return Masks(causal_hint(sizes), None)
        return _read(attn_mask, key_padding_mask, sizes)

    def _merge(self, values: Tensor, batch_first: bool) -> Tensor:
        """The heads side by side, projected: `(b, q, embed_dim)`, batch second without `batch_first`."""
        merged = values.transpose(1, 2) if batch_first else values.permute(2, 0, 1, 3)
        return self._output(merged.flatten(2))

    def _output(self, x: Tensor) -> Tensor:
        """The output projection, which torch never calls: as numbers where it is torch's own, and called where not."""
        if type(self.out_proj) is NonDynamicallyQuantizableLinear and "forward" not in vars(self.out_proj):
            return F.linear(x, self.out_proj.weight, self.out_proj.bias)
        # Wrapped or replaced, by LoRA for instance: its weight alone would not be all of it.
        made: Tensor = self.out_proj(x)
        return made

    def _nested(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        attn_mask: Tensor | None,
        need_weights: bool,
    ) -> Tensor:
        """Self-attention on a nested tensor: a batch without its padding, as `nn.TransformerEncoder` makes it."""
        if query is not key or key is not value or not self._qkv_same_embed_dim or self._appended():
            raise ShapeError(
                f"{type(self).__name__}: a nested tensor is taken as query, key and value at once, by a layer without "
                "kdim, vdim, add_bias_kv and add_zero_attn; give padded tensors and key_padding_mask."
            )
        if key_padding_mask is not None or attn_mask is not None or need_weights:
            raise MaskError(
                f"{type(self).__name__}: a nested tensor has its lengths in it, and is taken with need_weights=False "
                "and without masks; give padded tensors for these."
            )
        items = query.unbind()
        if not items or any(x.ndim != 2 or x.shape[1] != self.embed_dim for x in items):
            given = shape(items[0]) if items else "nothing"
            raise ShapeError(
                f"{type(self).__name__}: the nested tensor holds {given}; give (positions, {self.embed_dim}) for each "
                "batch item, and one or more."
            )
        lengths = [len(x) for x in items]
        packed = F.linear(torch.cat(items), self.in_proj_weight, self.in_proj_bias)
        together = pad_sequence(list(torch.split(packed, lengths)), batch_first=True)
        q, k, v = (
            part.transpose(1, 2)
            for part in together.view(*together.shape[:2], 3, self.num_heads, self.head_dim).unbind(2)
        )
        dropout = self.dropout if self.training else 0.0
        values = attend(q, k, v, mask=padding(lengths, lengths), dropout=dropout).transpose(1, 2).flatten(2)
        real = torch.cat([item[:length] for item, length in zip(values, lengths, strict=True)])
        output = self._output(real)
        return torch.nested.as_nested_tensor(list(torch.split(output, lengths)), layout=query.layout)
