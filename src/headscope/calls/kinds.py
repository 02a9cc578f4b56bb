"""Whether a call is self-attention, cross-attention or joint attention, by sizes and by where its keys come from."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from headscope.calls.call import Call
from headscope.calls.modules import OTHERS, Running

Kind = Literal["self", "cross", "joint"]

# Parts of a module's path that name cross-attention, where sizes do not tell.
NAMES = ("cross", "encoder_attn", "encdec", "encoder_decoder")


def kind_of(running: Running, call: Call) -> Kind:
    """The kind of a call.

    "cross": the keys are other states than the queries. "joint": two sequences attend to each other and to themselves
    in one call, as text and picture do in FLUX and SD3; the keys are both, one after the other. Else "self".

    A module that gets other states beside its own (`encoder_hidden_states`, …) uses them when the sizes say so: as many
    keys as other states, or as many as both together.

    Source: Esser et al. 2024 (SD3) for joint attention.
    """
    if call.cross is not None:
        return "cross" if call.cross else "self"
    if isinstance(running.module, nn.MultiheadAttention):
        # The call of torch's layer names both; a layer that stands in for it has the same call.
        return "self" if running.argument("query") is running.argument("key") else "cross"
    other = count(next((x for x in map(running.argument, OTHERS) if x is not None), None))
    own = count(next((x for x in (running.argument("hidden_states"), *running.args) if isinstance(x, Tensor)), None))
    queries, keys = call.q.shape[2], call.k.shape[2]
    if other is not None and own is not None and keys == own + other and queries in (own, keys):
        return "joint"
    if other is not None and keys == other:
        return "cross"
    if other is not None and own is not None and keys == own == queries:
        return "self"
    if getattr(running.module, "is_cross_attention", None) is True or other is not None:
        return "cross"
    if any(part in running.name.lower() for part in NAMES) and (sequences(running) > 1 or not own == queries == keys):
        return "cross"
    return "self"


def count(states: Any) -> int | None:
    """How many positions states `(batch, positions, size)` or `(positions, size)` have."""
    return states.shape[-2] if isinstance(states, Tensor) and states.ndim in (2, 3) else None


def sequences(running: Running) -> int:
    """How many different sequences of states a module got."""
    given = (*running.args, *running.kwargs.values())
    return len({id(x) for x in given if isinstance(x, Tensor) and x.ndim == 3 and x.is_floating_point()})
