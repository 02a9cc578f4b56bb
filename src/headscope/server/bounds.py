"""What a request may ask for: every parameter has a form and a bound, and one way to be refused."""

from __future__ import annotations

import re
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request

from headscope.characters import sentence, shortened

HEAD = re.compile(r"([0-9a-f]{12})-([0-9]{1,6})-([0-9]{1,6})-([0-9]{1,6})")
NUMBER = re.compile(r"[0-9]{1,10}")
# Of an address, with its parameters; tiles of HiGlass come in lists of many.
LONGEST_ADDRESS = 16_384
MOST_TEXT, MOST_CELLS, MOST_TOP, MOST_ENTRIES, LONGEST_SEARCH = 4096, 4096, 100, 200, 200
LARGEST_ZOOM = 40
LARGEST = 2**32
# Requests of weights that wait or run at once.
MOST_WAITING = 64


class HeadName(NamedTuple):
    """The identifier of a head, in its parts."""

    recording: str
    layer: int
    head: int
    item: int


def refused(why: str, status: int = 400) -> HTTPException:
    """An error whose sentence the client is shown."""
    return HTTPException(status, shortened(sentence(why), 400))


def head_name(text: str) -> HeadName:
    """The parts of a head's identifier."""
    found = HEAD.fullmatch(text)
    if found is None:
        raise refused("the head has the form RECORDING-LAYER-HEAD-ITEM, as /api/v1/recordings lists it.", 404)
    return HeadName(found[1], int(found[2]), int(found[3]), int(found[4]))


def integer(name: str, text: str, low: int, high: int) -> int:
    """A whole number within bounds."""
    if NUMBER.fullmatch(text) is None or not low <= int(text) <= high:
        raise refused(f"{name}: {shortened(text, 40)!r}; give a whole number from {low} to {high}.")
    return int(text)


def asked(request: Request, name: str, default: int, low: int, high: int) -> int:
    """A number among a request's parameters."""
    text = request.query_params.get(name)
    return default if text is None else integer(name, text, low, high)


def stretch(request: Request, length: int, most: int | None = None) -> tuple[int, int]:
    """`start` and `stop` of a request, within an axis."""
    start = asked(request, "start", 0, 0, length)
    stop = asked(request, "stop", length if most is None else min(length, start + most), start, length)
    if most is not None and stop - start > most:
        raise refused(f"stop: {stop - start} positions; ask for at most {most} at once.")
    return start, stop


def place(request: Request) -> tuple[int, int, int]:
    """Zoom, column and row of an address."""
    z = integer("z", request.path_params["z"], 0, LARGEST_ZOOM)
    return z, *(integer(name, request.path_params[name], 0, LARGEST) for name in ("x", "y"))  # type: ignore[return-value]


def profile(request: Request) -> tuple[int, int]:
    """How many cells and how many strongest a profile has."""
    return asked(request, "cells", 256, 1, MOST_CELLS), asked(request, "top", 10, 0, MOST_TOP)
