"""Why nothing was recorded: which modules look like attention, and why their calls were not seen."""

from __future__ import annotations

from torch import nn
from torch.jit import ScriptModule

from headscope.errors import NothingRecorded
from headscope.recording.modules import looks_like_attention
from headscope.recording.selection import Selection


def explain_nothing(model: nn.Module, ran: set[str], seen: dict[str, int], selection: Selection) -> NothingRecorded:
    """The error of a block in which nothing was kept."""
    return NothingRecorded(f"record: no attention was recorded in this block. {reason(model, ran, seen, selection)}")


def reason(model: nn.Module, ran: set[str], seen: dict[str, int], selection: Selection) -> str:
    """One or two sentences: what happened instead, and what to do."""
    kind = type(model).__name__
    if seen:
        names = ", ".join(f"{number} = {name or kind}" for name, number in list(seen.items())[:12])
        return (
            f"Attention was seen, but not in layers={selection.layers!r}. The layers that called it: "
            f"{names}{', …' if len(seen) > 12 else ''}."
        )
    if not ran:
        return (
            f"The model ({kind}) never ran inside the block; call it there: with hs.record(model) as recording: "
            "model(...)."
        )
    if any(isinstance(module, ScriptModule) for module in model.modules()):
        return (
            f"A part of {kind} is compiled by TorchScript, where nobody can listen; record the model before "
            "torch.jit.script or torch.jit.trace."
        )
    found = [(name, module) for name, module in model.named_modules() if looks_like_attention(module)]
    if not found:
        return (
            f"No module of {kind} looks like attention, and none called scaled_dot_product_attention, "
            "multi_head_attention_forward "
            "or another of the functions that headscope listens to. Is this a model with attention?"
        )
    kinds = sorted({type(module).__name__ for _, module in found})
    some = ", ".join(kinds[:4]) + (", …" if len(kinds) > 4 else "")
    listed = f"{len(found)} modules look like attention ({some}, first at {found[0][0] or 'the model itself'!r})"
    if not any(name in ran for name, _ in found):
        return (
            f"{listed}, but none of them ran inside the block. Call the part of the model that attends inside the "
            "block."
        )
    how = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if how is not None and how != "sdpa":
        return (
            f"{listed} and ran with attn_implementation={how!r}, which calls none of the functions that headscope "
            "listens to. "
            'Switch the model with model.set_attn_implementation("sdpa"), or load it so, and record again.'
        )
    return (
        f"{listed} and ran, but computed attention with functions of their own. Headscope hears "
        "scaled_dot_product_attention, multi_head_attention_forward, flex_attention, varlen_attn, flash-attn, "
        "xformers, hs.attend, and a softmax of a product of queries and keys that is multiplied with values; let the "
        "module call one of these."
    )
