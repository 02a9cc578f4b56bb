"""Texts as HTML for the report."""

from __future__ import annotations

import html

from headscope.characters import sentence
from headscope.view.labels import shortened

# Letters of a text that the report writes out.
LONGEST = 600


def escaped(text: str, longest: int = LONGEST) -> str:
    """A text with everything invisible in it written out, cut where it is very long.

    Example:
        >>> escaped("a < b")
        'a &lt; b'
    """
    return html.escape(sentence(shortened(text, longest)))
