"""Attention that ran and was not captured: which modules looked like it, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from torch import nn
from torch.jit import ScriptModule

from headscope.calls.modules import Stack, looks_like_attention
from headscope.characters import sentence
from headscope.compat.compiler import uncompiled_path
from headscope.compat.transformers import attention_implementation
from headscope.errors import NothingRecorded
from headscope.recording.selection import Selection

FUNCTIONS = (
    "scaled_dot_product_attention, multi_head_attention_forward, flex_attention, varlen_attn, flash-attn, xformers, "
    "hs.attend, and a softmax of a product of queries and keys that is multiplied with values"
)


class Missed(NamedTuple):
    """Attention that ran in a block and was not captured.

    Attributes:
        name: the path of the module.
        kind: its class.
        reason: why its call was not captured, as far as it is known.
    """

    name: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return sentence(f"{self.name or 'the model itself'} ({self.kind}): {self.reason}")


def missed(
    model: nn.Module, ran: Collection[str], captured: Collection[str], failures: Mapping[str, str]
) -> tuple[Missed, ...]:
    """Every module that looks like attention and ran, and in which no call was captured."""
    found = []
    for name, module in model.named_modules():
        path = uncompiled_path(name)
        if path in failures:
            found.append(Missed(path, type(module).__name__, failures[path]))
        elif path in ran and looks_like_attention(module) and not covered(path, captured):
            reason = "it called none of the functions that are intercepted"
            if isinstance(module, ScriptModule):
                reason = "it is compiled by TorchScript, where calls cannot be intercepted"
            found.append(Missed(path, type(module).__name__, reason))
    return tuple(found)


def covered(path: str, captured: Collection[str]) -> bool:
    """Whether a call was captured in a module, in a part of it, or in the attention module that it is a part of."""
    parent = path.rpartition(".")[0]
    return any(one in (path, parent) or one.startswith(f"{path}." if path else "") for one in captured)


def explain_nothing(
    model: nn.Module, stack: Stack, seen: Mapping[str, int], selection: Selection, unseen: Sequence[Missed]
) -> NothingRecorded:
    """The error of a block in which nothing was kept."""
    return NothingRecorded(
        f"record: no attention was recorded in this block. {reason(model, stack, seen, selection, unseen)}"
    )


def reason(
    model: nn.Module, stack: Stack, seen: Mapping[str, int], selection: Selection, unseen: Sequence[Missed]
) -> str:
    """One or two sentences: what happened instead, and what to do."""
    kind, ran = type(model).__name__, stack.ran
    failed = [one for one in unseen if not one.reason.startswith("it called none")]
    if failed:
        return f"{failed[0]}"
    if seen:
        names = ", ".join(f"{number} = {name or kind}" for name, number in list(seen.items())[:12])
        chosen = f"layers={selection.layers!r}" if selection.kind is None else f"kind={selection.kind!r}"
        if selection.kind is not None and selection.layers is not None:
            chosen = f"layers={selection.layers!r} of kind={selection.kind!r}"
        return (
            f"Attention was captured, but not in {chosen}. The layers that called it: "
            f"{names}{', …' if len(seen) > 12 else ''}."
        )
    if not ran and stack.elsewhere:
        return (
            f"The model ({kind}) ran inside the block only in another thread or task; a block records what its own "
            "thread and task run: open it where the model is called."
        )
    if not ran:
        return (
            f"The model ({kind}) never ran inside the block; call it there: with hs.record(model) as recording: "
            "model(...)."
        )
    if any(isinstance(module, ScriptModule) for module in model.modules()):
        return (
            f"A part of {kind} is compiled by TorchScript, where calls cannot be intercepted; record the model before "
            "torch.jit.script or torch.jit.trace."
        )
    found = [(name, module) for name, module in model.named_modules() if looks_like_attention(module)]
    if not found:
        return (
            f"No module of {kind} looks like attention, and none called one of the functions that headscope "
            f"intercepts: {FUNCTIONS}. Is this a model with attention?"
        )
    kinds = sorted({type(module).__name__ for _, module in found})
    some = ", ".join(kinds[:4]) + (", …" if len(kinds) > 4 else "")
    listed = f"{len(found)} modules look like attention ({some}, first at {found[0][0] or 'the model itself'!r})"
    if not any(name in ran for name, _ in found):
        return (
            f"{listed}, but none of them ran inside the block. Call the part of the model that attends inside the "
            "block."
        )
    how = attention_implementation(model)
    if how is not None and how != "sdpa":
        return (
            f"{listed} and ran with attn_implementation={how!r}, which calls none of the functions that headscope "
            'intercepts. Switch the model with model.set_attn_implementation("sdpa"), or load it so, and record again.'
        )
    return (
        f"{listed} and ran, but computed attention with functions of their own. Headscope intercepts {FUNCTIONS}; let "
        "the module call one of these."
    )
