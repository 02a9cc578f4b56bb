"""`record`: capture the attention calls of a model for the time of a block."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import torch
from torch import nn

from headscope.calls.interception import opened
from headscope.errors import ModelError
from headscope.recording.chosen_numbers import Numbers
from headscope.recording.recorder import Recorder
from headscope.recording.recording import Recording
from headscope.recording.selection import Kinds, Names, Queries, Selection, amount, place


def record(
    model: nn.Module | object,
    *,
    layers: Names = None,
    heads: Numbers = None,
    queries: Queries = None,
    kind: Kinds | Sequence[Kinds] | None = None,
    values: bool = True,
    grad: bool = False,
    to: torch.device | str | Path | None = None,
    dtype: torch.dtype | None = None,
    budget: int | str | None = None,
    overwrite: bool = False,
) -> Session:
    """Record every attention head of a model for the time of a `with` block; the model itself stays as it is.

    What is kept is q, k and v of every attention call, and who may see whom: O(N·d) numbers, from which any weight is
    computed when someone looks. Kernels, outputs and gradients are those of the model without the block, to the bit, in
    eager mode; torch's encoder layers keep their fast path. Compiled models, those of other threads included, run
    eagerly while a block is open.

    A block records what its own thread and task run; other threads and tasks are not affected. Blocks nest, and overlap
    in tasks of asyncio. Generating with a cache makes one layer of all steps of a module; a batch item of a beam search
    is the history of one beam as it was at the last step.

    Args:
        layers: numbers of attention layers in the order of their first call, or paths such as `"encoder.layer.3.*"`.
        heads: numbers of heads.
        queries: positions of queries; or "last", the last query of each call: in a generation those that the new tokens
            came from. Whatever is selected is the cut of the full recording; negative numbers count from the end.
        kind: "self", "cross", "joint", or the self-attention of the "encoder" or the "decoder"; or several of these.
        values: whether to keep v.
        grad: whether q, k and v stay in the graph of autograd, so that a loss on the weights reaches the model's
            parameters; and what each call returned, `layer.output`, is a node of the model's graph, of which gradients
            can be asked for after the block.
        to: the device to keep tensors on ("cpu", "cuda:1", …), or a folder: then each layer is written as soon as it is
            complete, and only one is in memory at a time.
        dtype: the floating point dtype to keep tensors in; their own unless set.
        budget: bytes that the recording may take in memory, or a text such as "2GB".
        overwrite: whether a folder that exists may be replaced.

    Raises:
        OverBudget: at the end of the block: `budget` was spent; nothing more was recorded then.
        RecordingError: the folder exists, or cannot be written.
        ModelError: `model` is not a torch.nn.Module, or `grad` together with a folder.
        NothingRecorded: the block ended and no attention had been captured.

    A call that cannot be read never breaks the model: a warning names it, and `recording.missed` lists it.

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
            f"record: expected a torch.nn.Module, got {type(model).__name__}; give the torch.nn.Module whose attention "
            f"is to be recorded.{hint}"
        )
    device, folder = place(to)
    if grad and folder is not None:
        raise ModelError("record: grad=True keeps tensors in the graph of autograd, in memory; leave out to=.")
    selection = Selection(layers, kind, heads, queries, values, dtype, device)
    limit = amount(budget)
    return Session(lambda: Recorder(model, selection, limit, folder, overwrite=overwrite, grad=grad))


class Session:
    """A recording block; entered again when it has ended, it makes another recording."""

    def __init__(self, recorder: Callable[[], Recorder]) -> None:
        self._make = recorder
        self._open: tuple[Recorder, contextlib.ExitStack] | None = None

    def __enter__(self) -> Recording:
        if self._open is not None:
            raise ModelError("record: this block is open already; call hs.record(model) again for another one.")
        with contextlib.ExitStack() as stack:
            recorder = self._make()
            stack.callback(recorder.abandon)
            with contextlib.ExitStack() as interception:
                interception.enter_context(opened(recorder))
                self._open = recorder, interception.pop_all()
            stack.pop_all()
        return recorder.recording

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._open is not None
        (recorder, interception), self._open = self._open, None
        with contextlib.ExitStack() as abandon:
            abandon.callback(recorder.abandon)
            interception.close()
            recorder.finish(complete=kind is None)
