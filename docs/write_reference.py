"""docs/reference.md: every public name, to be filled from its docstring when the site is built.

python docs/write_reference.py
"""

from __future__ import annotations

import importlib
from pathlib import Path

PAGE = Path(__file__).with_name("reference.md")
PACKAGES = {
    "headscope": "The names of `import headscope as hs`.",
    "headscope.nn": "Layers and models: `hs.nn`.",
    "headscope.look": "Numbers of q, k, v and a mask, in O(N) memory: `hs.look`.",
    "headscope.train": "Fine-tuning: `hs.train`.",
    "headscope.hf": "transformers: `hs.hf`.",
}
MODULES = {"hf", "look", "nn", "train"}  # public names that are packages of their own


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
        for name in sorted(set(module.__all__) - MODULES, key=str.lower):
            home = getattr(module, name).__module__
            parts.append(f"::: {home}.{name}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
