"""A shared file -> its page, or the folder of its recording; everything is checked before and while it is unpacked."""

from __future__ import annotations

import tempfile
from pathlib import Path

from headscope.errors import RecordingError
from headscope.files import system
from headscope.files.digests import digest_of_file
from headscope.files.zip_reader import ZipReader, check_room, opened
from headscope.share.manifest import LARGEST, NAME, PAGE, RECORDING, Manifest, decode, expected

# Recordings are mapped from their files as long as somebody looks, so the folders stay until the program ends.
UNPACKED: list[tempfile.TemporaryDirectory[str]] = []


def is_shared(path: Path) -> bool:
    """Whether a file begins as a zip file does and bears the name of one."""
    if path.suffix.lower() != ".zip":
        return False
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def unpack(path: Path, folder: Path) -> Manifest:
    """Unpack a shared file into an empty folder.

    Raises:
        RecordingError: it is not one, is damaged, altered or hostile; nothing outside of the folder is ever written.
    """
    with opened(path, expected, RecordingError) as packed:
        content = checked(path, packed)
        check_room(folder, sum(packed.sizes.values()), RecordingError)
        system.make_folder(folder / RECORDING)
        for name, entry in content.files.items():
            packed.unpack(name, folder / name)
            if digest_of_file(folder / name) != entry.sha256:
                raise RecordingError(f"{path}: {name} was altered or damaged after it was packed; ask for it again.")
    return content


def read_manifest(path: Path) -> Manifest:
    """What a shared file says of itself, without unpacking it.

    Raises:
        RecordingError: as `unpack`.
    """
    with opened(path, expected, RecordingError) as packed:
        return checked(path, packed)


def checked(path: Path, packed: ZipReader) -> Manifest:
    """The manifest, once it names exactly the files that are there."""
    content = decode(f"{path}: {NAME}", packed.read(NAME, LARGEST))
    listed = {name: entry.size for name, entry in content.files.items()}
    if listed != {name: size for name, size in packed.sizes.items() if name != NAME} or PAGE not in listed:
        raise RecordingError(f"{path}: {NAME} names other files than there are; it is damaged, or something else.")
    return content


def recording_of(path: Path) -> tuple[Path, Manifest]:
    """The folder of the recording in a shared file, which stays until the program ends.

    Raises:
        RecordingError: as `unpack`, or it holds a page alone.
    """
    folder = tempfile.TemporaryDirectory(prefix="headscope-shared-")
    UNPACKED.append(folder)
    content = unpack(path, Path(folder.name))
    if not any(name.startswith(RECORDING) for name in content.files):
        raise RecordingError(f"{path}: holds a page and no recording; unzip it and open {PAGE} in a browser.")
    return Path(folder.name) / RECORDING, content
