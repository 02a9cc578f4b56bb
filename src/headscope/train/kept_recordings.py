"""Which of the looks at a training are kept as whole recordings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from headscope.errors import TrainingError
from headscope.files.claims import retire
from headscope.recording.folder.reader import SUFFIX, names_in
from headscope.recording.recording import Recording, load

# "first and last", every so many looks, or steps.
Keep = Literal["first and last"] | int | Collection[int]
ENDS: Literal["first and last"] = "first and last"


class Kept:
    """The recordings that are kept: in a folder as `step-000100.headscope`, or in memory where there is none.

    Args:
        keep: "first and last"; a number n: every nth look, the first one among them; or a collection of steps, at
            which the model is looked at whatever `every` says.
    """

    def __init__(self, keep: Keep | object, folder: Path | None) -> None:
        if not (
            keep == ENDS
            or (isinstance(keep, int) and not isinstance(keep, bool) and keep >= 1)
            or (
                isinstance(keep, Collection)
                and not isinstance(keep, str | bytes)
                and all(isinstance(step, int) and step >= 0 for step in keep)
            )
        ):
            raise TrainingError(
                f"Watch: keep={keep!r}; give {ENDS!r}, a number to keep every so many looks, or a collection of steps."
            )
        self.keep: Keep = keep
        self.folder = folder
        self.found: dict[int, Recording | Path] = {}
        self.looks = 0
        self.last: tuple[int, Recording] | None = None

    def steps(self) -> frozenset[int]:
        """The steps that were asked for by number."""
        return frozenset() if isinstance(self.keep, str | int) else frozenset(self.keep)

    def begin(self, step: int, looks: int = 0) -> None:
        """Find what an earlier start of the same training kept up to this step, after so many looks."""
        if self.folder is not None:
            there = {
                path: path.name.removeprefix("step-").removesuffix(SUFFIX)
                for path in self.folder.glob(f"step-*{SUFFIX}")
            }
            numbered = {int(at): path for path, at in sorted(there.items()) if at.isdecimal()}
            self.found = {at: path for at, path in numbered.items() if at <= step}
            # What is to come again would be mixed with what an earlier start kept of it.
            for path in (path for at, path in numbered.items() if at > step and names_in(path) is not None):
                retire(path)
        self.looks = len(self.found) if self.keep == ENDS else looks

    def add(self, step: int, recording: Recording) -> None:
        """A look: keep it if it was asked for; the last one is held until it is known that it is the last."""
        first = self.looks == 0
        every = isinstance(self.keep, int) and self.looks % self.keep == 0
        self.looks += 1
        self.last = None
        if every or step in self.steps() or (self.keep == ENDS and first):
            self._keep(step, recording)
        elif self.keep == ENDS:
            self.last = step, recording

    def _keep(self, step: int, recording: Recording) -> None:
        if self.folder is None:
            self.found[step] = recording
        else:
            self.found[step] = recording.save(self.folder / f"step-{step:06}{SUFFIX}", overwrite=True)

    def close(self) -> None:
        """Keep the last look."""
        if self.last is not None:
            self._keep(*self.last)
            self.last = None

    def recordings(self) -> Mapping[int, Recording]:
        """What was kept, by step; recordings in a folder are opened, their numbers are read when someone looks."""
        return {step: x if isinstance(x, Recording) else load(x) for step, x in sorted(self.found.items())}
