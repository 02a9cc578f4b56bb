"""docs/reference.md: every public name, to be filled from its docstring when the site is built.

python docs/write_reference.py
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).with_name("reference.md")
PACKAGES = {
    "headscope": "The names of `import headscope as hs`.",
    "headscope.nn": "Layers and models: `hs.nn`.",
    "headscope.look": "Numbers of q, k, v and a mask, in O(N) memory: `hs.look`.",
    "headscope.train": "Fine-tuning: `hs.train`.",
    "headscope.hf": "transformers: `hs.hf`.",
    "headscope.errors": "Exceptions: `hs.errors`. [Each with its cause and way out](howto/errors.md).",
}
MODULES = {"errors", "hf", "look", "nn", "train"}  # public names that are packages of their own


def text() -> str:
    """The page in Markdown."""
    parts = [
        "---\nsearch:\n  boost: 0.2\n---\n",  # a page that explains a word comes before all that have it in a name
        "# Reference\n",
        "Generated from the docstrings. Shapes are written with the letters of `headscope/shapes.py`.\n",
    ]
    for package, what in PACKAGES.items():
        parts.append(f"## {package}\n\n{what}\n")
        module = importlib.import_module(package)
        for name in sorted(set(names(module)) - MODULES, key=str.lower):
            home = getattr(module, name).__module__
            parts.append(f"::: {home}.{name}\n")
    return "\n".join(parts)


def names(module: ModuleType) -> list[str]:
    """The public names of a package, and the exceptions of the module of errors."""
    errors = (name for name, thing in vars(module).items() if isinstance(thing, type) and issubclass(thing, Exception))
    return getattr(module, "__all__", None) or list(errors)


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
