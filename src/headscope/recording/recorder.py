"""The recorder of one block: follows every attention call of a model, and keeps what was selected."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from headscope.calls.blocks import Block, Output
from headscope.calls.call import Call
from headscope.calls.kinds import kind_of
from headscope.calls.lines import Lines
from headscope.calls.modules import Running
from headscope.compat.torch import own_computation
from headscope.compat.transformers import source_of
from headscope.errors import HeadscopeError
from headscope.recording import steps
from headscope.recording.axes import feature_maps
from headscope.recording.axes.inputs import Inputs
from headscope.recording.folder.writer import Writer, place_of
from headscope.recording.kept_copies import Keeper
from headscope.recording.layer import Layer
from headscope.recording.ranks.share import PartReader, Share, here, own_part
from headscope.recording.recording import Recording, load
from headscope.recording.selection import Selection
from headscope.recording.steps import Steps, joined
from headscope.recording.token_times import alignment_heads
from headscope.recording.unseen import explain_nothing, missed


class Recorder(Block):
    """One recording in the making."""

    def __init__(
        self,
        model: nn.Module,
        selection: Selection,
        budget: int | None,
        folder: Path | None,
        *,
        overwrite: bool = False,
        grad: bool = False,
    ) -> None:
        super().__init__(model)
        self.selection, self.edits = selection, grad
        self.read = PartReader()
        self.recording = Recording([], named(model), alignment_heads=alignment_heads(model))
        self.keeper = Keeper(selection.dtype, selection.device, budget, in_graph=grad)
        self.inputs, self.lines = Inputs(model), Lines()
        self.stack.observer = self._observe
        self.writer = None if folder is None else Writer(place_of(folder, here()), overwrite=overwrite)
        # The last layer of each module, which later steps of a generation may continue.
        self.growing: dict[str, Steps] = {}
        # What was selected, or may be in the end, in the order of the first calls; the first `written` are on the disk.
        self.kept: list[Steps] = []
        self.written = 0
        # Whether the last self-attention went on with earlier steps: cross-attention alone does not tell.
        self.went_on = False
        # Which heads of the model are in this process, and whether those that were asked for are in another.
        self.share: Share | None = None
        self.in_other_process = False

    def _observe(self, module: Running) -> None:
        """Note what a position embedding says of the map of a picture that is attended to later."""
        if feature_maps.is_position_embedding(type(module.module)):
            with labelling():
                feature_maps.note(self.stack.running, module)

    def capture(self, running: list[Running], make: Callable[[], Call | None]) -> None:
        """Follow an attention call, and keep what was selected of it."""
        if self.error is not None:
            return
        with labelling():
            self.inputs.see(running)
        with torch.inference_mode(False), torch.set_grad_enabled(self.edits), own_computation():
            call = make()
            if call is None:
                return
            kind = kind_of(running[-1], call)
            call, share = own_part(self.lines.shorten(call), running)
            self.share = share or self.share
            one = self._keep(call, kind, running[-1].name, share)
            if one is not None:
                with labelling():
                    self.inputs.captured(one, running, call)

    def edit(self, output: Output) -> Tensor | None:
        """Keep the node of the graph that the model goes on with; its numbers stay."""
        one, node = self.growing.get(output.name), output.values.view_as(output.values)
        if one is not None and one.layer is not None:
            one.layer.output = node
        return node

    def _keep(self, call: Call, kind: str, name: str, share: Share | None) -> Steps | None:
        """The steps of the call's module, None where nothing of them is kept: first followed, then selected."""
        number, cross = self.number(name), kind == "cross"
        if not call.k.shape[2] or not call.q.shape[2] or not call.q.shape[0]:
            return self._keep_first(call, kind, name, number, share)
        growing = self.growing.get(name)
        at = None
        if growing is not None and (not cross or self.went_on):
            at = steps.continues(growing, call, cross)
        if at is None and not cross:
            self.went_on = False
        if at is None or growing is None:
            return self._keep_first(call, kind, name, number, share)
        self.went_on = True
        if growing.layer is None:
            growing.follow(call, at, cross)
            return None
        kept, _, rows = self.selection.cut(call, share, growing.queries)
        self._spend(name, kept, new=0 if cross else call.q.shape[2])
        rows = None if rows is None else tuple(row + growing.offset for row in rows)
        steps.append(growing, call, kept, rows, self.keeper, at, cross)
        return growing

    def _keep_first(self, call: Call, kind: str, name: str, number: int, share: Share | None) -> Steps | None:
        """A call that begins a layer."""
        # The queries of a cross attention have positions of their own: how many keys count is not asked before a later
        # call, and a GPU is not waited for.
        uncounted = steps.largest_stop(call) if kind == "cross" else None
        seen = call.k.shape[2] if kind == "cross" else steps.capacity(call)
        offset = 0 if kind == "cross" else max(seen - call.q.shape[2], 0)
        asked = call.q.shape[2]
        fingerprints = steps.fingerprints_of(call.k[:, :, :seen])
        one = Steps(None, fingerprints, offset + asked, seen, offset, asked, uncounted)
        self.growing[name] = one
        if not self.selection.may_want(number, name, len(self.numbers)) or not self.selection.wants_kind(name, kind):
            return None
        kept, heads, rows = self.selection.cut(call, share)
        if not heads and call.q.shape[1]:
            self.in_other_process = True
            return None
        self._spend(name, kept, new=call.k.shape[2])
        one.layer = Layer(
            name,
            kind,  # type: ignore[arg-type]
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
            rows=None if rows is None else tuple(row + offset for row in rows),
            source=call.source,
            by_offset=None if kept.by_offset is None else self.keeper.convert(kept.by_offset),
        )
        self.kept.append(one)
        self._write_what_is_certain()
        self.recording.layers = [one.layer for one in self.kept if one.layer is not None]
        return one

    def _spend(self, name: str, kept: Call, new: int) -> None:
        """Count what is kept of a call: its queries, its new keys and values, and its bias."""
        k, v = (x[:, :, x.shape[2] - new :] for x in (kept.k, kept.v))
        self.keeper.spend(name, (kept.q, k, v if self.selection.values else None, kept.bias, kept.by_offset))

    def _write_what_is_certain(self) -> None:
        """Write the first call of layers that are selected whatever comes, as far as all before them are written."""
        if self.writer is None or self.selection.depends_on_the_count or self.written != len(self.kept) - 1:
            return
        one = self.kept[-1]
        assert one.layer is not None
        one.layer = self.writer.add(one.layer)
        self.written += 1
        self.keeper.spent = 0

    def finish(self, *, complete: bool) -> None:
        """Join what grew in several steps, cut what was selected, and close the folder.

        Args:
            complete: whether the block ended without an exception; else no folder is left.

        Raises:
            HeadscopeError: what went wrong inside, or nothing was recorded.
        """
        if complete and self.error is not None:
            raise self.error
        count = len(self.numbers)
        chosen = [
            one for one in self.kept if one.layer and self.selection.wants(one.layer.number, one.layer.name, count)
        ]
        self.recording.missed = missed(self.model, self.stack.ran, self.numbers, self.missed)
        if complete and not chosen and not self.in_other_process:
            raise explain_nothing(self.model, self.stack, self.numbers, self.selection, self.recording.missed)
        layers: list[Layer] = []
        for one in chosen:
            assert one.layer is not None
            position = len(layers)
            output = one.layer.output if not one.steps else None
            layer = self._cut(one, joined(one))
            layer.output = output
            if self.writer is not None and complete:
                if position >= self.written:
                    self.writer.add(layer)
                elif layer is not one.layer:
                    self.writer.replace(position, layer)
            with labelling():
                self.inputs.label(one, layer)
            if self.writer is not None and complete:
                self.writer.relabel(position, layer)
            layers.append(layer)
        self.recording.layers = layers
        self.recording.rank = here(self.share)
        if self.writer is not None:
            about = self.recording
            said = about.model, about.rank, about.missed, about.alignment_heads
            path = self.writer.finish(*said) if complete else None
            self.recording.layers = [] if path is None else load(path).layers

    def _cut(self, one: Steps, layer: Layer) -> Layer:
        """The queries that were chosen, now that it is known how many there are."""
        wanted = self.selection.final_rows(one.queries)
        if wanted is None or layer.rows is None:
            return layer
        rows = tuple(row + one.offset for row in wanted)
        return layer if rows == layer.rows else layer.of_rows(rows)

    def abandon(self) -> None:
        """Let go of everything; a folder that is not complete is removed."""
        if self.writer is not None:
            self.writer.abandon()
        self.growing.clear()
        self.kept.clear()


@contextlib.contextmanager
def labelling() -> Iterator[None]:
    """What fails in finding out what positions are leaves them numbered, and the weights as they are."""
    try:
        yield
    except HeadscopeError:
        raise
    except Exception as error:  # noqa: BLE001  # inputs of models are of every kind there is
        warnings.warn(
            f"record: positions are numbered and have no labels: reading the inputs of the model failed with "
            f"{type(error).__name__}: {error}. recording.tokens(...) gives them labels.",
            stacklevel=2,
        )


def named(model: nn.Module) -> str:
    """The class of a model, and where it was loaded from."""
    source = source_of(model)
    name = type(model).__name__
    if any(kind.__name__ == "FSDPModule" for kind in type(model).__mro__):
        name = name.removeprefix("FSDP")  # which FSDP puts before the name of the class that it spreads
    return f"{name} ({source})" if source else name
