"""The weights of torch's own layers, laid out as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from headscope.errors import ModelError
from headscope.nn.convertible import checked
from headscope.nn.projection import pack
from headscope.shapes import shape


def multihead_options(theirs: nn.Module, of_memory: bool) -> dict[str, Any]:
    """The arguments of `MultiheadAttention` that make a layer of the sizes of torch's.

    Raises:
        ModelError: another kind of module, or one that has something that ours has not.
    """
    layer = checked(theirs, nn.MultiheadAttention, "the attention")
    check_multihead(layer)
    # Its type says Tensor, and without bias it is None.
    bias: Tensor | None = layer.in_proj_bias
    return {
        "embed_dim": layer.embed_dim,
        "num_heads": layer.num_heads,
        "kv_dim": layer.kdim if of_memory or layer.kdim != layer.embed_dim else None,
        "bias": bias is not None,
        "dropout": layer.dropout,
        "device": layer.out_proj.weight.device,
        "dtype": layer.out_proj.weight.dtype,
    }


def multihead_trained(theirs: nn.Module, own: Mapping[str, Tensor], head_dim: int) -> dict[str, bool]:
    """Which parameters of ours hold numbers that are trained in torch's layer."""
    # Laid out as the weights are.
    trained = {name: torch.full(p.shape, p.requires_grad, device="cpu") for name, p in theirs.named_parameters()}
    return {name: bool(found.any()) for name, found in multihead_state(trained, own, head_dim).items()}


def check_multihead(layer: nn.MultiheadAttention) -> None:
    """Raise `ModelError` when a layer of torch has something that ours has not."""
    reasons = []
    if layer.bias_k is not None or layer.bias_v is not None:
        reasons.append("add_bias_kv=True (a learned key and value of its own)")
    if layer.add_zero_attn:
        reasons.append("add_zero_attn=True (a key of zeros; ours has sinks=True instead)")
    if layer.kdim != layer.vdim:
        reasons.append(f"kdim={layer.kdim} and vdim={layer.vdim} (keys and values are made of one memory here)")
    if reasons:
        raise ModelError(
            f"from_torch: this nn.MultiheadAttention has {'; '.join(reasons)}. Make it without, or keep torch's layer."
        )


def multihead_state(
    theirs: Mapping[str, Tensor], own: Mapping[str, Tensor], head_dim: int, prefix: str = ""
) -> dict[str, Tensor]:
    """The state dict of `nn.MultiheadAttention`, under the names and in the layout of ours.

    Args:
        own: the state dict of the layer that will take it, for its names and sizes.
        prefix: in front of every name of theirs.
    """
    state = {name[len(prefix) :]: tensor for name, tensor in theirs.items() if name.startswith(prefix)}
    letters: dict[str, dict[str, Tensor]] = {"weight": {}, "bias": {}}
    for kind in ("weight", "bias"):
        together = state.pop(f"in_proj_{kind}", None)
        if together is not None:
            letters[kind] = dict(zip("qkv", together.chunk(3), strict=True))
    for letter in "qkv":
        alone = state.pop(f"{letter}_proj_weight", None)
        if alone is not None:
            letters["weight"][letter] = alone
    made = {
        f"output.{kind}": state.pop(f"out_proj.{kind}") for kind in ("weight", "bias") if f"out_proj.{kind}" in state
    }
    for name in own:
        where, _, kind = name.rpartition(".")
        part = where.removeprefix("project.")
        if where.startswith("project.") and all(letter in letters[kind] for letter in part):
            rows = [letters[kind][letter] for letter in part]
            # What cannot be laid out is kept as it is: the check below names its size.
            made[name] = torch.cat(rows) if any(len(row) % head_dim for row in rows) else pack(rows, head_dim)
    made.update(state)
    check_same(made, own)
    return made


def check_same(made: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise `ModelError` unless both have the same names with the same sizes."""
    missing, unknown = sorted(own.keys() - made.keys()), sorted(made.keys() - own.keys())
    sizes = [
        f"{name} {shape(made[name])} instead of {shape(own[name])}"
        for name in own
        if name in made and made[name].shape != own[name].shape
    ]
    problems = [
        f"{word}: {', '.join(names)}"
        for word, names in (("missing", missing), ("unknown", unknown), ("of another size", sizes))
        if names
    ]
    if problems:
        raise ModelError(
            f"load_torch_state_dict: {'; '.join(problems)}. Make the layer with the sizes that were saved; "
            "its weights are unchanged."
        )
