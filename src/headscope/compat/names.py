"""A private name of another library: where it is, what it is for, and what happens without it."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import sys
import warnings
from dataclasses import dataclass
from typing import Any

from headscope.errors import UnsupportedVersion

# The oldest and the newest version that the tests were run with, as docs/versions.md says.
TESTED = {"torch": ("2.13.0", "2.14.1"), "transformers": ("5.23.0", "5.24.0")}

_warned: set[str] = set()


@dataclass(frozen=True)
class Private:
    """One private name.

    Attributes:
        path: the module and the attributes below it, as in "torch.nn.functional:_in_projection".
        use: what headscope does with it, a verb phrase: "reads …".
        without: what works in a version that does not have it, a sentence.
    """

    path: str
    use: str
    without: str

    def find(self, *, load: bool = True) -> Any | None:
        """What the name stands for, or None; with `load=False` also None while its module was not imported."""
        return look_up(self.path, load=load)

    def get(self) -> Any:
        """What the name stands for.

        Raises:
            UnsupportedVersion: this version does not have it.
        """
        found = self.find()
        if found is None:
            raise self.missing()
        return found

    def missing(self) -> UnsupportedVersion:
        """The error of a version that does not have the name."""
        return UnsupportedVersion(self._sentence(f"has no {self.name}"))

    def changed(self, how: str) -> UnsupportedVersion:
        """The error of a version in which the name is there and means something else."""
        return UnsupportedVersion(self._sentence(f"has another {self.name} ({how})"))

    def fall_back(self) -> None:
        """Warn, once in a process, that the version does not have the name and what happens instead."""
        if self.path not in _warned:
            _warned.add(self.path)
            warnings.warn(self._sentence(f"has no {self.name}"), stacklevel=3)

    @property
    def name(self) -> str:
        """The name as it would be written in a program."""
        return self.path.replace(":", ".")

    @property
    def library(self) -> str:
        """The library that the name is in."""
        return self.name.partition(".")[0]

    def _sentence(self, what: str) -> str:
        library = self.library
        return f"{library} {version(library)} {what}, with which headscope {self.use}. {self.without} {advice(library)}"


def look_up(path: str, *, load: bool = True) -> Any | None:
    """What `module:name.name` stands for; None where the module or one of the names is not there."""
    module, names = parts(path)
    found: Any = sys.modules.get(module)
    if found is None:
        if not load:
            return None
        try:
            found = importlib.import_module(module)
        except ImportError:
            return None
    for name in names:
        found = getattr(found, name, None)
        if found is None:
            return None
    return found


@functools.cache
def parts(path: str) -> tuple[str, tuple[str, ...]]:
    """The module of a path, and the names below it."""
    module, _, names = path.partition(":")
    return module, tuple(filter(None, names.split(".")))


def version(library: str) -> str:
    """The version of a library that is loaded or installed; "(not installed)" where there is none."""
    loaded = getattr(sys.modules.get(library), "__version__", None)
    if loaded is not None:
        return str(loaded)
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def advice(library: str) -> str:
    """Which versions of a library were tested."""
    oldest, newest = TESTED[library]
    return f"Tested with {library} {oldest} to {newest}: pip install '{library}=={newest}' installs the newest of them."
