"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

LONGEST = 32


class Kind(NamedTuple):
    """What a file is: whether it is a picture, a sound or a table, and what to call it."""

    what: Literal["picture", "sound", "parquet", "other"]
    name: str


# Where in the file, which bytes, what that is.
MAGIC: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"\x89PNG\r\n", Kind("picture", "a picture (PNG)")),
    (0, b"\xff\xd8\xff", Kind("picture", "a picture (JPEG)")),
    (0, b"GIF8", Kind("picture", "a picture (GIF)")),
    (8, b"WEBP", Kind("picture", "a picture (WebP)")),
    (0, b"II*\x00", Kind("picture", "a picture (TIFF)")),
    (0, b"MM\x00*", Kind("picture", "a picture (TIFF)")),
    (0, b"BM", Kind("picture", "a picture (BMP)")),
    (4, b"ftypavif", Kind("picture", "a picture (AVIF)")),
    (4, b"ftypheic", Kind("picture", "a picture (HEIC)")),
    (8, b"WAVE", Kind("sound", "a sound (WAV)")),
    (0, b"fLaC", Kind("sound", "a sound (FLAC)")),
    (0, b"OggS", Kind("sound", "a sound (Ogg)")),
    (0, b"ID3", Kind("sound", "a sound (MP3)")),
    (0, b"\xff\xfb", Kind("sound", "a sound (MP3)")),
    (8, b"AIFF", Kind("sound", "a sound (AIFF)")),
    (4, b"ftypM4A", Kind("sound", "a sound (M4A)")),
    (0, b"PAR1", Kind("parquet", "a Parquet file")),
    (4, b"ftyp", Kind("other", "a video")),
    (0, b"\x1aE\xdf\xa3", Kind("other", "a video")),
    (0, b"PK\x03\x04", Kind("other", "a zip archive, such as a spreadsheet")),
    (0, b"\x1f\x8b", Kind("other", "a gzip archive")),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("other", "a 7z archive")),
    (0, b"\xfd7zXZ", Kind("other", "an xz archive")),
    (0, b"BZh", Kind("other", "a bzip2 archive")),
    (0, b"(\xb5/\xfd", Kind("other", "a zstd archive")),
    (0, b"%PDF", Kind("other", "a PDF")),
    (0, b"{\\rtf", Kind("other", "a rich text document")),
    (0, b"\xd0\xcf\x11\xe0", Kind("other", "an old spreadsheet or document")),
    (0, b"SQLite format 3", Kind("other", "a database")),
    (0, b"\x89HDF", Kind("other", "an HDF5 file")),
    (0, b"\x7fELF", Kind("other", "a program")),
    (0, b"\x80\x02", Kind("other", "a pickle, which is not opened")),
    (0, b"\x80\x03", Kind("other", "a pickle, which is not opened")),
    (0, b"\x80\x04", Kind("other", "a pickle, which is not opened")),
    (0, b"\x80\x05", Kind("other", "a pickle, which is not opened")),
)


def kind_of(start: bytes) -> Kind | None:
    """What a file that begins with these bytes is; None for text, and for what is not known.

    Example:
        >>> kind_of(b"RIFF....WAVEfmt ").what, kind_of(b"Once upon a time")
        ('sound', None)
    """
    for place, magic, kind in MAGIC:
        if start[place : place + len(magic)] == magic and not (magic == b"BM" and start[6:10] != bytes(4)):
            return kind
    return None


def kind_of_file(path: Path) -> Kind | None:
    """What a file is by its first bytes."""
    with path.open("rb") as file:
        return kind_of(file.read(LONGEST))
