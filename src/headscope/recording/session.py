"""`record`: listen to a model for the time of a block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import torch
from torch import nn

from headscope.attention.masks.tensors import Reader
from headscope.errors import ModelError
from headscope.recording import interface, listening, steps
from headscope.recording.axes.inputs import Inputs
from headscope.recording.calls import Call
from headscope.recording.folder.writer import Writer, place_of
from headscope.recording.kept_copies import Keeper
from headscope.recording.layer import Layer
from headscope.recording.modules import Stack, crosses
from headscope.recording.ranks.share import PartReader, Share, here, own_part
from headscope.recording.recording import Recording, load
from headscope.recording.selection import Kinds, Names, Numbers, Queries, Selection, amount, place
from headscope.recording.steps import Steps, joined
from headscope.recording.unseen import explain_nothing


def record(
    model: nn.Module | object,
    *,
    layers: Names = None,
    heads: Numbers = None,
    queries: Queries = None,
    kind: Kinds | Sequence[Kinds] | None = None,
    values: bool = True,
    to: torch.device | str | Path | None = None,
    dtype: torch.dtype | None = None,
    budget: int | str | None = None,
    overwrite: bool = False,
) -> Session:
    """Record every attention head of a model for the time of a `with` block; the model itself stays as it is.

    What is kept is q, k and v of every attention call, and who may see whom: O(N·d) numbers, from which any weight is
    computed when someone looks. Kernels, outputs and gradients are those of the model without the block.

    Args:
        layers: numbers of attention layers in the order of their first call, or paths such as `"encoder.layer.3.*"`.
        heads: numbers of heads.
        queries: positions of queries, or "last".
        kind: "self", "cross", or the self-attention of the "encoder" or the "decoder"; or several of these.
        values: whether to keep v.
        to: the device to keep tensors on ("cpu", "cuda:1", …), or a folder: then each layer is written as soon as it is
            complete, and only one is in memory at a time.
        dtype: the floating point dtype to keep tensors in; their own unless given.
        budget: bytes that the recording may take in memory, or a text such as "2GB".
        overwrite: whether a folder that exists may be replaced.

    Generating with a cache makes one layer of all steps of a module; a batch item of a beam search is the history of
    one beam as it was at the last step.

    Raises:
        OverBudget: in the block, when `budget` is spent.
        RecordingError: the folder exists, or cannot be written.
        ModelError: `model` is no module.
        NothingRecorded: the block ended and no attention had been seen.

    Example:
        >>> import torch, headscope as hs
        >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
        >>> with hs.record(layer) as recording:
        ...     _ = layer(torch.ones(1, 3, 8))
        >>> recording[0, 1].row(2).tolist()  # three equal tokens share the attention
        [0.333..., 0.333..., 0.333...]
    """
    if not isinstance(model, nn.Module):
        inner = getattr(model, "model", None)
        hint = (
            f" It holds one: use hs.record({type(model).__name__.lower()}.model)."
            if isinstance(inner, nn.Module)
            else ""
        )
        raise ModelError(
            f"record: given a {type(model).__name__}; give the torch.nn.Module whose attention is to be recorded.{hint}"
        )
    device, folder = place(to)
    selection = Selection(layers, kind, heads, queries, values, dtype, device)
    return Session(model, selection, amount(budget), folder, overwrite)


class Session:
    """One recording block."""

    def __init__(
        self, model: nn.Module, selection: Selection, budget: int | None, folder: Path | None, overwrite: bool
    ) -> None:
        self.model, self.selection, self.folder, self.overwrite = model, selection, folder, overwrite
        self.writer: Writer | None = None
        self.layers: list[Layer] = []
        self.recording = Recording(self.layers, named(model))
        self.numbers: dict[str, int] = {}
        # The last layer of each module, which later steps of a generation may continue.
        self.growing: dict[str, Steps] = {}
        self.kept: list[Steps] = []
        self.went_on = False
        self.inputs = Inputs(model)
        # Which heads of the model are in this process, and whether those that were asked for are in another.
        self.share: Share | None = None
        self.elsewhere = False
        self.read: Reader = PartReader()
        self.keeper = Keeper(selection.dtype, selection.device, budget)
        self._stack: Stack | None = None
        self._mode: listening.Listening | None = None

    def __enter__(self) -> Recording:
        if self._stack is not None:
            raise ModelError("record: this block is open already; call hs.record(model) again for another one.")
        if self.folder is not None:
            self.writer = Writer(place_of(self.folder, here()), overwrite=self.overwrite)
        self._stack = Stack(self.model)
        listening.install()
        interface.local.sessions.append(self)
        self._mode = listening.Listening(self)
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        return self.recording

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, mode = self._stack, self._mode
        assert stack is not None
        assert mode is not None
        mode.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        interface.local.sessions.remove(self)
        listening.remove()
        stack.remove()
        self._stack = self._mode = None
        try:
            if kind is None and not self.kept and not self.elsewhere:
                raise explain_nothing(self.model, stack.ran, self.numbers, self.selection)
            self.finish(complete=kind is None)
        finally:
            if self.writer is not None:
                self.writer.abandon()
            self.growing.clear()
            self.kept.clear()

    def finish(self, *, complete: bool) -> None:
        """Join what grew in several steps, and close the folder; an exception in the block leaves no folder."""
        for position, one in enumerate(self.kept):
            layer = joined(one)
            if self.writer is not None and one.steps and complete:
                self.writer.replace(position, layer)
            self.inputs.label(one, layer)
            if self.writer is not None:
                self.writer.relabel(position, layer)
            self.layers[position] = layer
        self.recording.rank = here(self.share)
        if self.writer is not None:
            path = self.writer.finish(self.recording.model, self.recording.rank) if complete else None
            self.layers[:] = [] if path is None else load(path).layers

    def hear(self, make: Callable[[int | None], Call | None]) -> None:
        """Keep an attention call, if it comes from the model and was asked for."""
        # Inside a backward pass a forward runs again (activation checkpointing): that call was heard already.
        if self._stack is None or not self._stack.running or torch._C._current_graph_task_id() != -1:
            return
        running = self._stack.running[-1]
        known = self.numbers.get(running.name)
        if interface.local.quiet or (known is not None and not self.selection.wants(known, running.name)):
            return
        self.inputs.see(self._stack.running)
        with torch.inference_mode(False), torch.no_grad(), torch._C.DisableTorchFunction():
            heard = make(listening.head_count(running.module))
            if heard is None:
                return
            number = self.numbers.setdefault(running.name, len(self.numbers))
            if not self.selection.wants(number, running.name):
                return
            call = interface.unrepeated(heard, self)
            if call.cross is None:
                call.cross = crosses(running)
            if not self.selection.wants_kind(running.name, bool(call.cross)):
                return
            call, share = own_part(call, self._stack.running)
            self.share = share or self.share
            self.keep(call, running.name, number, share)
            if running.name in self.growing:
                self.inputs.heard(self.growing[running.name], self._stack.running, call)

    def keep(self, call: Call, name: str, number: int, share: Share | None = None) -> None:
        """Append what was asked for of a call to the recording, or to the layer that it continues."""
        cross = bool(call.cross)
        kept, heads, rows = self.selection.cut(call, share)
        if not heads:
            self.elsewhere = True
            return
        self.keeper.spend(name, (kept.q, kept.k, kept.v if self.selection.values else None, kept.bias))
        growing = self.growing.get(name)
        if growing is not None and growing.layer.head_numbers == heads and (not cross or self.went_on):
            at = steps.continues(growing, call, cross)
            if at is not None:
                self.went_on = True
                steps.append(growing, call, kept, rows, self.keeper, at, cross)
                return
        if not cross:
            self.went_on = False
        seen = steps.room(call)
        asked = 0 if cross else seen - call.q.shape[2]
        layer = Layer(
            name,
            "cross" if cross else "self",
            self.keeper.copy(kept.q),
            self.keeper.copy(kept.k),
            self.keeper.copy(kept.v) if self.selection.values else None,
            None if kept.runs is None else kept.runs.to(self.selection.device),
            call.scale,
            call.softcap,
            None if kept.bias is None else self.keeper.convert(kept.bias),
            None if kept.sinks is None else self.keeper.copy(kept.sinks),
            number=number,
            head_numbers=heads,
            rows=None if rows is None else tuple(row + max(asked, 0) for row in rows),
            source=call.source,
        )
        if self.writer is not None:
            layer = self.writer.add(layer)
            self.keeper.spent = 0
        prints = steps.prints_of(call.k[:, :, :seen])
        self.growing[name] = Steps(layer, prints, max(asked, 0) + call.q.shape[2], seen)
        self.kept.append(self.growing[name])
        self.layers.append(layer)


def named(model: nn.Module) -> str:
    """The class of a model, and where it was loaded from."""
    source = getattr(getattr(model, "config", None), "_name_or_path", "")
    name = type(model).__name__
    if any(kind.__name__ == "FSDPModule" for kind in type(model).__mro__):
        name = name.removeprefix("FSDP")  # which FSDP puts before the name of the class that it spreads
    return f"{name} ({source})" if source else name
