"""The multi-head layer: project, positions, attend, merge heads, output."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from headscope.attention.api import attend
from headscope.attention.bias import Bias
from headscope.attention.masks.mask import Mask
from headscope.errors import ShapeError
from headscope.nn import from_torch
from headscope.nn.cache import KeyValueCache
from headscope.nn.cached import Cached
from headscope.nn.intact import intact
from headscope.nn.placement import columns
from headscope.nn.projection import Projection
from headscope.nn.rotary import Rotary
from headscope.nn.sizes import check_sizes
from headscope.nn.slot import Slot


class MultiheadAttention(Cached):
    """Multi-head attention: self-attention, or cross-attention to a memory; with as many key/value heads as wanted.

    Args:
        embed_dim: the width of the output.
        num_heads: how many query heads.
        input_dim: the width of x; `embed_dim` unless given.
        kv_dim: the width of memory, for a layer whose keys and values are made of one; a layer without it takes a
            memory too, of the width of x, but has its weights laid out for self-attention.
        num_kv_heads: how many key/value heads; fewer than `num_heads` is grouped-query, 1 is multi-query attention.
        head_dim: the size of one query, key and value; `embed_dim / num_heads` unless given.
        bias: of the projections to q, k and v: all, none, or the letters of those that have one, such as "qv".
        out_bias: of the output projection; as `bias` unless given.
        rotary: turns queries and keys by their positions; several layers may share one.
        qk_norm: makes the norm of queries, and that of keys, from the size of a head: `nn.RMSNorm`.
        scale: multiplies the scores; `1/√d` unless given.
        softcap: bounds the scores, as in `hs.attend`.
        sinks: one learned logit per head in the denominator.
        dropout: the probability that a weight is dropped in training.

    Shapes:
        x `(b, q, input_dim)`, memory `(b, k, kv_dim)` → `(b, q, embed_dim)`.

    Raises:
        ShapeError: heads that do not divide, or sizes below 1; in `forward`, x or memory of another width or batch.

    Source: Vaswani et al. 2017, §3.2.2; Ainslie et al. 2023 for grouped queries.

    Example:
        >>> layer = MultiheadAttention(512, 8, input_dim=1024)
        >>> layer(torch.randn(30, 5, 1024)).shape
        torch.Size([30, 5, 512])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        input_dim: int | None = None,
        kv_dim: int | None = None,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool | str = True,
        out_bias: bool | None = None,
        rotary: Rotary | None = None,
        qk_norm: Callable[[int], nn.Module] | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        sinks: bool = False,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.head_dim = check_sizes(embed_dim, num_heads, kv_heads, head_dim, input_dim, kv_dim)
        self.embed_dim, self.num_heads, self.num_kv_heads = embed_dim, num_heads, kv_heads
        self.scale, self.softcap, self.dropout = scale, softcap, dropout
        width = embed_dim if input_dim is None else input_dim
        self.project = Projection(width, kv_dim, num_heads, kv_heads, self.head_dim, bias, device, dtype)
        out_bias = bool(bias) if out_bias is None else out_bias
        self.output = nn.Linear(num_heads * self.head_dim, embed_dim, out_bias, device, dtype)
        self.sinks = nn.Parameter(torch.empty(num_heads, device=device, dtype=dtype)) if sinks else None
        self.rotary = None if rotary is None else rotary.to(device, dtype)
        self.q_norm, self.k_norm = (None if qk_norm is None else qk_norm(self.head_dim).to(device, dtype) for _ in "qk")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """New random weights, drawn as `nn.MultiheadAttention` draws them; sinks start at 0."""
        self.project.reset_parameters()
        self.output.reset_parameters()
        if self.output.bias is not None:
            nn.init.zeros_(self.output.bias)
        if self.sinks is not None:
            nn.init.zeros_(self.sinks)

    def forward(
        self,
        x: Float[Tensor, "b q _"],
        memory: Float[Tensor, "b k _"] | None = None,
        *,
        mask: Mask | None = None,
        bias: Bias | None = None,
        cache: KeyValueCache | None = None,
        positions: Shaped[Tensor, "*at"] | None = None,
    ) -> Float[Tensor, "b q m"]:
        """The steps of the paper: each position of x looks at x, or at memory, and takes what it needs.

        Args:
            memory: what keys and values are made of; x itself where it is not given.
            mask: who may attend to whom.
            bias: added to the scores.
            cache: the keys and values of earlier calls, which x goes on from; this call's are put there too.
            positions: where the columns of x stand, `(q,)` or `(b, q)`, for the rotary positions: branches of a draft,
                patches of which some were dropped, a shard of a longer context. One after the other unless given. A
                mask counts columns, wherever they stand.
        """
        slot = self.check(x, memory, bias, cache, positions)
        with intact(cache, () if slot is None else (slot,)):
            q, k, v = self.inputs(x, memory, slot)
            q, k = self.turn(q, k, slot, cache, positions)
            k, v, mask = self.remember(k, v, memory, mask, slot, cache)
            values = self.attend(q, k, v, mask, bias)
            merged = merge_heads(values)
            return self.output(merged)  # type: ignore[no-any-return]

    def check(
        self, x: Tensor, memory: Tensor | None, bias: Bias | None, cache: KeyValueCache | None, positions: Tensor | None
    ) -> Slot | None:
        """Raise `ShapeError` for wrong arguments, before any work; returns this layer's place in the cache."""
        where = type(self).__name__
        if cache is None:
            slot, seen, remembered = None, 0, False
        else:
            slot = cache.slot(self, x, memory)
            seen, remembered = slot.seen, slot.memory is not None
            if bias is not None and cache.keep:
                raise ShapeError(f"{where}: a bias by distance needs every key in its place; use a cache without keep.")
        self.project.check(where, x, memory, remembered)
        if self.rotary is None:
            if positions is not None:
                raise ShapeError(
                    f"{where}: positions were given and this layer has no rotary ones; make it with rotary=…, or give "
                    "them to the model, whose embedding has the positions."
                )
        elif memory is not None or remembered:
            raise ShapeError(f"{where}: x and memory have no positions in common; make this layer without rotary.")
        elif positions is not None:
            columns(where, 0, positions, x.shape[0], x.shape[1], self.rotary.max_positions)
        elif cache is None or cache.positions is None:
            self.rotary.check(where, seen + x.shape[1])
        return slot

    def inputs(self, x: Tensor, memory: Tensor | None, slot: Slot | None) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of every head; those of a memory that was seen before come from the cache."""
        if slot is not None and slot.memory is not None:
            q = self.project.queries(x)
            k, v = slot.memory
            return q if self.q_norm is None else self.q_norm(q), k.to(q.dtype), v.to(q.dtype)
        q, k, v = self.project(x, memory)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return q, k, v

    def turn(
        self, q: Tensor, k: Tensor, slot: Slot | None, cache: KeyValueCache | None, positions: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """q and k turned by their positions, where the layer has rotary ones."""
        if self.rotary is None:
            return q, k
        first: int | Tensor = 0
        if slot is not None and cache is not None:
            first, positions = cache.place(slot.seen, q.shape[2], positions, q.device)
        return self.rotary(q, first, positions=positions), self.rotary(k, first, positions=positions)

    def remember(
        self,
        k: Tensor,
        v: Tensor,
        memory: Tensor | None,
        mask: Mask | None,
        slot: Slot | None,
        cache: KeyValueCache | None,
    ) -> tuple[Tensor, Tensor, Mask | None]:
        """The keys and values of earlier calls and of this one, and who may see them."""
        if slot is None or cache is None:
            return k, v, mask
        slot.check_like(type(self).__name__, k)
        if memory is not None or slot.memory is not None:
            slot.memory = slot.memory or (k, v)
            return k, v, mask
        n = k.shape[2]
        k, v = slot.append(k, v)
        return k, v, cache.mask(slot, n, mask, k.device)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, bias: Bias | None) -> Float[Tensor, "b h q d"]:
        """`hs.attend` with what belongs to the layer."""
        dropout = self.dropout if self.training else 0.0
        sinks: Tensor | None = self.sinks
        if sinks is not None and hasattr(sinks, "to_local"):
            # Under tensor parallelism each device has the sinks of its own heads.
            sinks = sinks.to_local()
        return attend(
            q, k, v, mask=mask, bias=bias, scale=self.scale, softcap=self.softcap, sinks=sinks, dropout=dropout
        )

    @classmethod
    def from_torch(cls, layer: nn.Module, *, of_memory: bool = False) -> MultiheadAttention:
        """The same layer with the same weights, from torch's.

        This layer takes `(batch, positions, width)` whatever `batch_first` was there, and masks of headscope. Frozen
        weights stay frozen.

        Args:
            layer: an `nn.MultiheadAttention`.
            of_memory: lay the weights out for cross-attention: this layer then always takes a memory.

        Raises:
            ModelError: the layer has something that this one has not: `add_bias_kv`, `add_zero_attn`, `kdim` ≠ `vdim`;
                methods, hooks or parametrizations of its own.

        Example:
            >>> theirs = nn.MultiheadAttention(6, 3, batch_first=True)
            >>> ours, x = MultiheadAttention.from_torch(theirs), torch.randn(2, 5, 6)
            >>> bool((ours(x) - theirs(x, x, x)[0]).abs().max() < 1e-5)
            True
        """
        made = cls(**from_torch.multihead_options(layer, of_memory))
        made.load_torch_state_dict(layer.state_dict())
        for name, trained in from_torch.multihead_trained(layer, made.state_dict(), made.head_dim).items():
            made.get_parameter(name).requires_grad_(trained)
        return made.train(layer.training)

    def load_torch_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a `torch.nn.MultiheadAttention` of the same sizes, from its state dict.

        Raises:
            ModelError: an entry is missing, unknown or of another size; this layer keeps its weights.
        """
        self.load_state_dict(from_torch.multihead_state(state, self.state_dict(), self.head_dim))


def merge_heads(values: Float[Tensor, "b h q d"]) -> Float[Tensor, "b q _"]:
    """The values of all heads side by side: the paper's Concat."""
    b, h, n, d = values.shape
    return values.transpose(1, 2).reshape(b, n, h * d)
