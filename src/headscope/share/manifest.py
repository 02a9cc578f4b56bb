"""`share.json`: what a shared file holds and how it was made."""

from __future__ import annotations

import platform
import re
from typing import Annotated

import msgspec
import torch
from msgspec import Meta

from headscope.errors import RecordingError
from headscope.files.claims import OURS
from headscope.view.page import installed

FORMAT, NAME, PAGE, RECORDING = 1, "share.json", "index.html", "recording.headscope/"
LARGEST = 2**24

Text = Annotated[str, Meta(max_length=2**16)]


class FileEntry(msgspec.Struct, forbid_unknown_fields=True):
    """A file: its length and its SHA-256."""

    size: Annotated[int, Meta(ge=0, lt=2**53)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Manifest(msgspec.Struct, forbid_unknown_fields=True):
    """What `share.json` says; `command` is what made the recording or the page."""

    format: int
    title: Text
    command: Text
    model: Text
    headscope: Text
    torch: Text
    python: Text
    files: Annotated[dict[Text, FileEntry], Meta(max_length=2**16)]


def manifest(title: str, command: str, model: str, files: dict[str, FileEntry]) -> Manifest:
    """The manifest of files, with the versions that are installed."""
    return Manifest(
        FORMAT, title, command, model, installed(), str(torch.__version__), platform.python_version(), files
    )


def encode(content: Manifest) -> bytes:
    """The bytes of `share.json`, to be read by people, too."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2)


def decode(where: str, data: bytes) -> Manifest:
    """What the bytes of `share.json` say.

    Raises:
        RecordingError: not JSON, of a newer format, or not what such a file says.
    """
    try:
        version = msgspec.json.decode(data, type=dict[str, object]).get("format")
        if version != FORMAT:
            raise RecordingError(
                f"{where}: field format: {version!r}; this headscope reads format {FORMAT}. Update it to open the file."
            )
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordingError(f"{where}: {error}; headscope did not write this, or it is damaged.") from None


def expected(name: str) -> bool:
    """Whether a shared file may hold an entry of that name.

    Example:
        >>> expected("index.html"), expected("recording.headscope/layer-00003.safetensors"), expected("../index.html")
        (True, True, False)
    """
    inside = name.removeprefix(RECORDING)
    return name in (NAME, PAGE) or (inside != name and re.fullmatch(OURS, inside) is not None)
