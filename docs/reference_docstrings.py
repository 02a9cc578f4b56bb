"""How the reference reads docstrings: an example is code, and parameters that are documented together are each listed.

Source: extensions of Griffe, https://mkdocstrings.github.io/griffe/guide/users/extending/
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
TOGETHER = re.compile(r"^    (?P<names>\w+(?:, \w+)+): (?P<text>.*(?:\n {5,}.*)*)$", re.MULTILINE)


class Docstrings(Extension):
    """Turns the project's docstrings into what Griffe's reader of Google style knows."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for every object with its docstring still unread."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)


def readable(text: str) -> str:
    """A docstring with a section of examples, and with one entry for each parameter."""
    return TOGETHER.sub(apart, EXAMPLE.sub("Examples:", text))


def apart(found: re.Match[str]) -> str:
    """One entry for each of the names."""
    return "\n".join(f"    {name}: {found['text']}" for name in found["names"].split(", "))
