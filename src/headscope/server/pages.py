"""The page's own files: those of the map, and the modules that it shares with the page of one recording."""

from __future__ import annotations

import base64
import re
from functools import cache
from importlib.resources import files

from headscope.view.colour import table

NAME = re.compile(r"[a-z0-9_-]{1,40}\.(js|css|html|svg)")
TYPES = {"js": "text/javascript", "css": "text/css", "html": "text/html", "svg": "image/svg+xml"}
FOLDERS = ("headscope.server", "headscope.view")
INDEX = "map.html"


@cache
def file(name: str) -> tuple[bytes, str] | None:
    """The bytes of a file by its name alone, and its media type; None where there is none."""
    found = NAME.fullmatch(name)
    if found is None:
        return None
    for package in FOLDERS:
        path = files(package) / "assets" / name
        if path.is_file():
            return path.read_bytes(), TYPES[found[1]] + "; charset=utf-8"
    return None


@cache
def colours() -> dict[str, str]:
    """The colours of weights from 0 to the largest, in base64."""
    return {theme: base64.b64encode(table(theme).tobytes()).decode() for theme in ("light", "dark")}
