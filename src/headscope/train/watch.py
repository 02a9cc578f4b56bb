"""`Watch`: every so many steps of a training, what each head does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from torch import Tensor, nn

from headscope.compat.compiler import uncompiled
from headscope.errors import MissingExtra, ModelError, TrainingError
from headscope.look.table import Row, Table
from headscope.recording.chosen_numbers import Numbers
from headscope.recording.recording import Recording
from headscope.recording.selection import Names
from headscope.recording.session import record
from headscope.train import board, probe, processes
from headscope.train.eval_mode import undisturbed
from headscope.train.head_rows import LOSS, rows_of, table_of
from headscope.train.kept_recordings import ENDS, Keep, Kept
from headscope.train.log import Log
from headscope.train.probe import Probe, Tokens
from headscope.train.watch_identity import about

if TYPE_CHECKING:
    from transformers import TrainerCallback


class Watch:
    """Looks at a model every so many steps of its training: records a probe and measures every head.

    The training stays as it is, to the bit: a look happens in evaluation mode without gradients, and modes, buffers and
    random number generators are put back.

    Of several processes that train one model together (tensor parallelism, FSDP), each makes a watch with the same
    arguments and gives the same probe: every row has the model's number of its head, all processes have the table, and
    the first one writes. Of copies of a model (data parallelism) one watch, on the first process, is enough.

    With `to`, every look appends a line for each head to `heads.jsonl`; with TensorBoard installed its curves and
    pictures come to the same folder, with pyarrow `heads.parquet` when the watch is closed.

    Args:
        probe: what the model is called with to be looked at: keyword arguments as a mapping, positional ones as a
            tuple, or a function that takes the model and calls it.
        every: steps between two looks.
        to: a folder of its own; without it rows and recordings stay in memory.
        tokens: the texts of the probe's tokens, or a function that takes the recording and says what its positions
            are; without it there are no measures of special tokens and of copies.
        keep: which looks are kept as recordings, `to/step-000100.headscope`: "first and last", a number n for every nth
            look, or a collection of steps, at which the model is looked at in any case.
        layers, heads: what is recorded, as in `hs.record`; everything unless given.
        images: heads whose map is drawn at every look in TensorBoard, as (layer, head).
        start: the step that a resumed training goes on from, also 0; rows of later steps are replaced. Without it a
            folder that has rows already is refused.

    Raises:
        TrainingError: arguments that mean nothing, a folder that holds something else, a watch that was closed.
        ModelError: `model` is not a torch.nn.Module.
        NothingRecorded: the probe ran and no attention was seen.

    Example:
        >>> import torch, headscope as hs
        >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> optimizer = torch.optim.SGD(layer.parameters(), 0.1)
        >>> with hs.Watch(layer, (torch.ones(1, 4, 8),), every=2) as watch:
        ...     for _ in range(4):
        ...         optimizer.zero_grad()
        ...         loss = layer(torch.ones(3, 4, 8)).square().mean()
        ...         loss.backward()
        ...         optimizer.step()
        ...         watch.step(loss)
        >>> [(row["step"], row["head"], round(row["entropy"], 3)) for row in watch.table][:3]
        [(0, 0, 1.386), (0, 1, 1.386), (2, 0, 1.386)]
        >>> list(watch.recordings)
        [0, 4]
    """

    def __init__(
        self,
        model: nn.Module | object,
        probe: Probe | object,
        *,
        every: int = 100,
        to: str | Path | None = None,
        tokens: Tokens | None = None,
        keep: Keep | object = ENDS,
        layers: Names = None,
        heads: Numbers = None,
        images: Sequence[tuple[int, int]] = (),
        start: int | None = None,
    ) -> None:
        # The compiled form of a model keeps its own code; what is looked at is the model that was compiled.
        inner = uncompiled(model)
        if not isinstance(inner, nn.Module):
            raise ModelError(f"Watch: given a {type(model).__name__}; give the torch.nn.Module that is trained.")
        check(probe, every, start)
        self.model, self.probe, self.every, self.tokens = inner, probe, every, tokens
        self.layers, self.heads, self.images, self.start = layers, heads, images, start
        # Of several processes all look, and the first one writes.
        self.writes = to is None or processes.writes()
        folder = None if to is None or not self.writes else Path(to)
        self.kept = Kept(keep, folder)
        self.log = None if folder is None else Log(folder)
        self.board: board.Board | None = None
        self.steps = start or 0
        self._rows: list[Row] = []
        self._looked: int | None = None
        self._loss: Tensor | float | None = None
        self._state = "new"

    def begin(self, step: int | None = None, loss: float | None = None) -> None:
        """Look for the first time, before training, at the step it stands at. Entering the block does it.

        Args:
            step: where a training that was stopped goes on.
            loss: the last one before that; that of the last row unless given.

        Raises:
            TrainingError: the folder has rows already, and neither `start` nor a step above 0 was given; or they are
                of another model, probe or selection.
        """
        self._open(step)
        self._loss = self._loss if loss is None else loss
        if self._looked != self.steps:
            self.look()

    def _open(self, step: int | None = None) -> None:
        """Get the folder ready, once."""
        if self._state == "closed":
            raise TrainingError("Watch: this watch was closed; make another one to watch another training.")
        if self._state == "new":
            with undisturbed(self.model):
                self._prepare(step)
            self._state = "open"

    def _prepare(self, step: int | None) -> None:
        self.steps = self.steps if step is None else step
        if self.log is not None:
            if self.log.rows and self.start is None and self.steps == 0:
                raise TrainingError(
                    f"Watch: {self.log.file} has the rows of an earlier training, up to step "
                    f"{self.log.rows[-1]['step']}. Give start=STEP to go on with it (start=0 begins again and "
                    "replaces them), or another folder."
                )
            self.log.begin(self.steps, about(self.model, self.probe, self.layers, self.heads))
            self._rows = self.log.rows
            self._loss = self._rows[-1].get(LOSS) if self._rows and self._loss is None else self._loss
            if board.is_there():
                self.board = board.Board(self.log.folder, self.steps, self.images)
        self.kept.begin(self.steps, len({row["step"] for row in self._rows}))
        self._looked = processes.agreed(self.model, int(self._rows[-1]["step"]) if self._rows else None)

    def step(self, loss: Tensor | float | None = None) -> None:
        """Say that a step of training is done; every `every` steps the model is looked at.

        Outside of a `with` block call `look()` before the first step, to see what was before the training.

        Args:
            loss: of this step, for the table and the curves; a tensor is only read when the model is looked at.
        """
        self._open()
        self.reached(self.steps + 1, loss)

    def reached(self, step: int, loss: Tensor | float | None = None, *, last: bool = False) -> None:
        """Say which step the training has reached, where somebody else counts; the `last` one is looked at always."""
        self._open(step)
        self.steps = step
        if loss is not None:
            self._loss = loss.detach() if isinstance(loss, Tensor) else loss
        if step % self.every == 0 or step in self.kept.steps() or last:
            self.look()

    def add_loss(self, loss: float) -> None:
        """Say a loss between two looks: a point of the curve, and what the next rows say."""
        self._open()
        self._loss = loss
        if self.board is not None:
            self.board.loss(self.steps, loss)

    def look(self) -> Recording:
        """Look at the model now, and give the recording of the probe. A step is written once, however often."""
        self._open()
        with undisturbed(self.model):
            with record(self.model, layers=self.layers, heads=self.heads) as recording:
                probe.call(self.model, self.probe)
            processes.put_back(self.model)
            recording = processes.whole(recording)
            probe.label(recording, self.tokens)
            if self._looked != self.steps:
                self._looked = self.steps
                self._write(recording)
        return recording

    def _write(self, recording: Recording) -> None:
        rows = rows_of(self.steps, recording, None if self._loss is None else float(self._loss))
        if self.writes:  # before the rows: killed in between, the step is looked at once more
            self.kept.add(self.steps, recording)
        if self.log is not None:
            self.log.add(rows)
        else:
            self._rows += rows
        if self.board is not None:
            self.board.add(self.steps, rows, recording)

    @property
    def table(self) -> Table:
        """Every row so far: step, layer, head, the measures of `recording.heads()`, and the loss where it was added."""
        return table_of(self._rows)

    @property
    def recordings(self) -> Mapping[int, Recording]:
        """The recordings that were kept, by step."""
        return self.kept.recordings()

    def callback(self) -> TrainerCallback:
        """This watch as a callback of the transformers `Trainer`: `Trainer(..., callbacks=[watch.callback()])`.

        Steps are the Trainer's own, also when it resumes; the loss is the one that it logs. The watch is closed when
        the training ends.

        Raises:
            MissingExtra: transformers is not installed.
        """
        try:
            from headscope.train.callback import WatchCallback
        except ImportError as error:
            raise MissingExtra(
                f"Watch.callback: the Trainer needs transformers, which is not installed ({error}): "
                "pip install 'headscope[hf]'"
            ) from error
        return WatchCallback(self)

    def close(self) -> None:
        """Look a last time, where training went on since the last look, and write what is left; once is enough."""
        if self._state == "open":
            try:
                if self._looked != self.steps:
                    self.look()
            finally:
                self._finish()
        self._state = "closed"

    def _finish(self) -> None:
        """Write what is left."""
        self._state = "closed"
        with undisturbed(self.model):
            self.kept.close()
            for part in (self.log, self.board):
                if part is not None:
                    part.close()

    def __enter__(self) -> Watch:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._state == "open":
            self._finish()


def check(what: object, every: object, start: object) -> None:
    """Raise `TrainingError` for arguments that mean nothing."""
    probe.check(what)
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise TrainingError(f"Watch: every={every!r}; give how many steps lie between two looks, 1 or more.")
    if start is not None and (not isinstance(start, int) or start < 0):
        raise TrainingError(f"Watch: start={start!r}; give the step that the training goes on from, 0 or more.")
