"""Whether a call is self-attention, cross-attention or joint attention, by sizes and by where its keys come from."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from headscope.calls.call import Call
from headscope.calls.modules import OTHERS, Running

Kind = Literal["self", "cross", "joint"]

# Parts of a module's path that name cross-attention, where sizes do not tell.
NAMES = ("cross", "encoder_attn", "encdec", "encoder_decoder")
# Parts of the names of arguments that have an axis of positions and are no states.
NO_STATES = ("mask", "bias", "pos", "rot", "cos", "sin", "rel", "freq", "past", "cache")


def kind_of(running: Running, call: Call) -> Kind:
    """The kind of a call.

    "cross": the keys are other states than the queries. "joint": two sequences attend to each other and to themselves
    in one call, as text and picture do in FLUX and SD3; the keys are both, one after the other. Else "self".

    A module that gets other states beside its own (`encoder_hidden_states`, …) uses them when the sizes say so: as many
    keys as other states, or as many as both together. Other states are known by the names that such arguments have, and
    where none of these is there by their size: as many positions as keys, where its own states have another number.

    Source: Esser et al. 2024 (SD3) for joint attention.
    """
    if call.cross is not None:
        return "cross" if call.cross else "self"
    if isinstance(running.module, nn.MultiheadAttention):
        # The call of torch's layer names both; a layer that stands in for it has the same call.
        return "self" if running.argument("query") is running.argument("key") else "cross"
    states = next((x for x in (running.argument("hidden_states"), *running.args) if isinstance(x, Tensor)), None)
    queries, keys = call.q.shape[2], call.k.shape[2]
    other = count(next((x for x in map(running.argument, OTHERS) if x is not None), None))
    own = count(states)
    if other is None and own not in (None, keys) and states is not None and among_arguments(running, states, keys):
        return "cross"
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


def among_arguments(running: Running, states: Tensor, keys: int) -> bool:
    """Whether an argument beside a module's own states is states with as many positions as there are keys.

    A step of a decoder has one query; that it has more keys is as true of a cache, so that sizes alone do not tell.
    """
    return any(
        isinstance(x, Tensor)
        and x is not states
        and x.ndim == states.ndim
        and x.is_floating_point()
        and count(x) == keys
        and not any(part in name.lower() for part in NO_STATES)
        for name, x in running.arguments()
    )


def count(states: Any) -> int | None:
    """How many positions states `(batch, positions, size)` or `(positions, size)` have."""
    return states.shape[-2] if isinstance(states, Tensor) and states.ndim in (2, 3) else None


def sequences(running: Running) -> int:
    """How many different sequences of states a module got."""
    inputs = (*running.args, *running.kwargs.values())
    return len({id(x) for x in inputs if isinstance(x, Tensor) and x.ndim == 3 and x.is_floating_point()})
