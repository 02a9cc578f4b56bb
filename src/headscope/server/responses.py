"""What a client gets: answers with the tag of their content, and errors as one sentence in JSON."""

from __future__ import annotations

import hashlib

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


def tagged(request: Request, content: bytes, kind: str, caching: str = "no-cache") -> Response:
    """An answer with the tag of its content, or 304 where the client has it."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    headers = {"ETag": tag, "Cache-Control": caching}
    if tag in [part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers | {"Content-Type": kind})


def sentence_of(error: Exception) -> str:
    """What an error says."""
    return error.detail if isinstance(error, HTTPException) else str(error)


async def on_refusal(request: Request, error: Exception) -> Response:
    """A refusal as JSON."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def on_error(request: Request, error: Exception) -> Response:
    """What the numbers refuse: a tile that does not exist, a damaged file."""
    return JSONResponse({"error": str(error)}, 404)


async def on_hang_up(request: Request, error: Exception) -> Response:
    """An answer that nobody reads."""
    return Response(status_code=499)
