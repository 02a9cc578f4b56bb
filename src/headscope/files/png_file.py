"""Pictures as PNG files, written without a library: thumbnails that travel in a page or a recording."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from jaxtyping import UInt8

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, COLOUR = 0, 2  # types of colour in the header


def png(pixels: UInt8[np.ndarray, "rows columns"] | UInt8[np.ndarray, "rows columns 3"]) -> bytes:
    """A picture as a PNG file: grey, or red, green and blue.

    Source: Portable Network Graphics Specification, W3C, chapters 5 and 9.

    Example:
        >>> size_of(png(np.zeros((2, 3), np.uint8)))
        (2, 3)
    """
    rows, columns = pixels.shape[:2]
    # Each row is a filter, here "the difference from the row above", and its bytes: half the size of plain rows.
    lines = pixels.reshape(rows, -1)
    above = np.concatenate([np.zeros_like(lines[:1]), lines[:-1]])
    filtered = np.concatenate([np.full((rows, 1), 2, np.uint8), lines - above], axis=1)
    header = struct.pack(">IIBBBBB", columns, rows, 8, GREY if pixels.ndim == 2 else COLOUR, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 9)), (b"IEND", b""))
    return SIGNATURE + b"".join(chunk(name, content) for name, content in parts)


def chunk(name: bytes, content: bytes) -> bytes:
    """One part of a PNG file: length, name, content, checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def size_of(content: bytes) -> tuple[int, int] | None:
    """Rows and columns of a PNG file by its header; None where it is none."""
    if content[:8] != SIGNATURE or content[12:16] != b"IHDR" or len(content) < 33:
        return None
    columns, rows = struct.unpack(">II", content[16:24])
    return rows, columns
