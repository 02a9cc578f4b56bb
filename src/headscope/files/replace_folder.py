"""A folder that is there whole or not at all: written beside its place, and exchanged for what is there in one step."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headscope.errors import HeadscopeError
from headscope.files import system
from headscope.files.claims import PART, claim, discard, release, sweep
from headscope.files.replace_file import Handle, reason

# How often something may come and go in the way before that is an error.
TRIES = 20


class Folder:
    """A folder that is written as a whole.

    Where `renameat2` can exchange two names, a folder that is replaced is there at every moment, the old one or the
    new one. Elsewhere the old one is moved aside first, to a name at which `found` finds it.

    Args:
        target: its place.
        owned: the names in an existing folder that headscope wrote, or None where it is not headscope's.
        overwrite: whether an existing one of headscope's may be replaced. Files of others in it stay in it.
        fail: makes the exception of what went wrong.
    """

    def __init__(
        self,
        target: Path,
        owned: Callable[[Path], set[str] | None],
        *,
        overwrite: bool = False,
        fail: Callable[[str], HeadscopeError] = HeadscopeError,
    ) -> None:
        self.target, self.owned, self.overwrite, self.fail = target, owned, overwrite, fail
        with self.named(target):
            with system.folder_held(target.parent):
                repair(target)
                self.check()
            sweep(target.parent)
            self._claim = claim(target.parent, a_folder=True)
        self.path = self._claim.path

    def check(self) -> dict[str, os.stat_result]:
        """What must stay of a folder that is there already: the files in it that are not headscope's.

        Raises:
            HeadscopeError: something is there that is not to be replaced.
        """
        if not os.path.lexists(self.target):
            return {}
        if not self.overwrite:
            raise self.fail(f"{self.target}: exists already; give another name, or overwrite=True to replace it.")
        ours: set[str] | None = None
        if stat.S_ISDIR(os.lstat(self.target).st_mode):
            with os.scandir(self.target) as entries:
                there = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
            ours = self.owned(self.target) if there else set()
        if ours is None:
            raise self.fail(
                f"{self.target}: exists and headscope did not write it, so it is not overwritten; give another name, "
                "or remove it yourself."
            )
        foreign = {name: about for name, about in there.items() if name not in ours and not PART.fullmatch(name)}
        for name, about in foreign.items():
            if not stat.S_ISREG(about.st_mode):
                raise self.fail(
                    f"{self.target}: holds {name}, which headscope did not write and cannot take over; move it "
                    "elsewhere, or give another name."
                )
        return foreign

    @contextmanager
    def named(self, file: Path) -> Iterator[None]:
        """Whatever goes wrong with a file: what was written is removed, and the error names the file."""
        try:
            yield
        except OSError as error:
            self.abandon()
            raise self.fail(
                f"{self.target}: cannot be written: {reason(error)} (at {file.name}); nothing was left behind, and "
                "what was there is as it was."
            ) from error

    @contextmanager
    def writing(self, name: str) -> Iterator[Handle]:
        """A file of the folder, to write to; a file that has the name already is replaced when the block ends."""
        final = self.path / name
        with self.named(final):
            made = claim(self.path)
            try:
                yield Handle(made.handle)
                system.sync(made.handle)
                system.replace(made.path, final)
            except BaseException:
                with suppress(OSError):
                    system.remove(made.path)
                raise
            finally:
                release(made)

    def commit(self) -> Path:
        """Move the folder to its place, and remove what it replaces."""
        with self.named(self.target):
            system.sync_folder(self.path)
            with system.folder_held(self.target.parent):
                old = self._move()
                system.sync_folder(self.target.parent)
            if old is not None:
                discard(old)
            release(self._claim)
        return self.target

    def _move(self) -> Path | None:
        """Take the place; gives where the old folder is now."""
        for _ in range(TRIES):
            kept = self.check()
            self._keep(kept)
            try:
                if not os.path.lexists(self.target):
                    system.rename(self.path, self.target)
                    return None
                if system.exchange(self.path, self.target):
                    return self.path
                self._move_aside()
                return None
            except (FileNotFoundError, FileExistsError):
                continue  # somebody else moved or removed it meanwhile
        raise self.fail(f"{self.target}: is being replaced by others all the time; give another name.")

    def _move_aside(self) -> None:
        """Take the place where names cannot be exchanged: for a moment the old folder has another name."""
        aside = aside_of(self.target)
        repair(self.target)
        system.rename(self.target, aside)
        try:
            system.rename(self.path, self.target)
        except OSError:
            system.rename(aside, self.target)
            raise
        system.sync_folder(self.target.parent)
        discard(aside)

    def _keep(self, names: dict[str, os.stat_result]) -> None:
        """Give the files of others a second name in the new folder, so that they are in the place at every moment."""
        for name in names:
            try:
                system.link(self.target / name, self.path / name)
            except FileExistsError:
                continue
            except OSError as error:
                raise self.fail(
                    f"{self.target}: holds {name}, which headscope did not write and cannot take over "
                    f"({reason(error)}); move it elsewhere, or give another name."
                ) from error

    def abandon(self) -> None:
        """Leave nothing behind; after a commit there is nothing."""
        made: object = getattr(self, "_claim", None)
        if made is None:
            return
        release(self._claim)
        with suppress(OSError):
            discard(self.path)


def aside_of(target: Path) -> Path:
    """Where an old folder waits while a new one takes its place, where names cannot be exchanged."""
    return target.with_name(f".headscope-old-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}")


def found(target: Path) -> Path:
    """A folder, or where it was put aside by a process that was killed before the new one took its place."""
    if os.path.lexists(target) or not target.name:
        return target
    aside = aside_of(target)
    return aside if aside.is_dir() else target


def repair(target: Path) -> None:
    """Finish what a process that was killed has begun: put an old folder back, or remove it where the new one is."""
    aside = aside_of(target)
    if not os.path.lexists(aside):
        return
    if os.path.lexists(target):
        discard(aside)
    else:
        system.rename(aside, target)
