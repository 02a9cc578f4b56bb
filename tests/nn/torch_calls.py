"""Every way to call torch's attention layer, as data: the options of the layer and the arguments of the call."""

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

D = torch.float64
LAYERS = (
    {},
    {"bias": False},
    {"add_bias_kv": True},
    {"add_bias_kv": True, "add_zero_attn": True},
    {"kdim": 5, "vdim": 7},
)
INPUTS = ("self", "cross", "three")
PAIR_MASKS = (None, "bool", "float", "bool by head", "float by head", "causal")
KEY_MASKS = (None, "bool", "float")


class Case(NamedTuple):
    layer: dict[str, Any]
    inputs: str
    pair_mask: str | None
    key_mask: str | None
    batch_first: bool
    batched: bool
    training: bool
    need_weights: bool
    average: bool
    is_causal: bool

    def __str__(self) -> str:
        return "-".join(map(str, self)).replace(" ", "")


def cases() -> list[Case]:
    """All that make sense together."""
    two = (False, True)
    every = itertools.starmap(
        Case, itertools.product(LAYERS, INPUTS, PAIR_MASKS, KEY_MASKS, two, two, two, two, two, two)
    )
    return [
        case
        for case in every
        if not (case.layer.get("kdim") and case.inputs != "three")
        and not (case.is_causal and case.pair_mask != "causal")
        and not (not case.need_weights and not case.average)
    ]


def layer_of(case: Case) -> nn.MultiheadAttention:
    """Torch's layer, with weights that are large enough to tell."""
    layer = nn.MultiheadAttention(12, 3, batch_first=case.batch_first, dtype=D, **case.layer).train(case.training)
    for p in layer.parameters():
        nn.init.normal_(p, std=0.3)
    return layer


def call_of(case: Case, batch: int = 2, queries: int = 5, keys: int = 7) -> tuple[list[Tensor], dict[str, Any]]:
    """The inputs, which need gradients, and the other arguments."""
    keys = queries if case.inputs == "self" else keys
    batch = batch if case.batched else 1

    def states(count: int, width: int) -> Tensor:
        x = torch.randn(batch, count, width, dtype=D)
        x = x[0] if not case.batched else x if case.batch_first else x.transpose(0, 1)
        return x.contiguous().requires_grad_()

    query = states(queries, 12)
    key = query if case.inputs == "self" else states(keys, case.layer.get("kdim", 12))
    value = states(keys, case.layer.get("vdim", 12)) if case.inputs == "three" else key
    key_mask = mask_of(case.key_mask, (batch, keys))
    by_head = case.pair_mask is not None and "head" in case.pair_mask
    options = {
        "attn_mask": mask_of(case.pair_mask, (batch * 3, queries, keys) if by_head else (queries, keys)),
        "key_padding_mask": key_mask if key_mask is None or case.batched else key_mask[0],
        "need_weights": case.need_weights,
        "average_attn_weights": case.average,
        "is_causal": case.is_causal,
    }
    return [query, key, value], options


def mask_of(kind: str | None, sizes: tuple[int, ...]) -> Tensor | None:
    """A mask of torch in which every query sees the first key."""
    if kind is None:
        return None
    if kind == "causal":
        return torch.ones(sizes, dtype=torch.bool).triu(1)
    hidden = torch.rand(sizes) < 0.3
    hidden[..., 0] = False
    return hidden if "bool" in kind else torch.randn(sizes, dtype=D).masked_fill(hidden, -torch.inf)
