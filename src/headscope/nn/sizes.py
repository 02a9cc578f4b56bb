"""The sizes of a multi-head layer, and whether they fit together."""

from __future__ import annotations

from headscope.errors import ShapeError


def check_sizes(
    embed_dim: int, heads: int, kv_heads: int, head_dim: int | None, input_dim: int | None, kv_dim: int | None
) -> int:
    """The size of one head; raises `ShapeError` where the sizes do not fit together."""
    sizes = {
        "embed_dim": embed_dim,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": head_dim,
        "input_dim": input_dim,
        "kv_dim": kv_dim,
    }
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ShapeError(f"MultiheadAttention: {name}={size}; give at least 1.")
    if heads % kv_heads:
        raise ShapeError(
            f"MultiheadAttention: {heads} heads cannot share {kv_heads} key/value heads evenly; "
            f"give num_kv_heads that divides {heads}."
        )
    if head_dim is not None:
        return head_dim
    below = max(embed_dim // heads, 1) * heads
    if embed_dim % heads:
        raise ShapeError(
            f"MultiheadAttention: embed_dim={embed_dim} is not a multiple of num_heads={heads}; "
            f"give an embed_dim of {below} or {below + heads}, or a head_dim of its own."
        )
    return embed_dim // heads
