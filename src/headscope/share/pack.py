"""A recording, or a page, and how it was made -> one zip file."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from pathlib import Path

from headscope.errors import RecordingError
from headscope.files.bounded import read_bounded
from headscope.files.places import with_suffix
from headscope.files.replace_file import Output, writing
from headscope.recording.folder.format import NAME as RECORDING_FILE
from headscope.recording.folder.reader import SUFFIX, names_in, parts_in
from headscope.recording.recording import load
from headscope.share.manifest import NAME, PAGE, RECORDING, FileEntry, Manifest, encode, manifest
from headscope.view.page import page

# A page holds at most what a browser does.
LARGEST_PAGE = 2**30
MARK = b'name="generator" content="headscope'
# The same content is the same file, whenever it is packed.
DATE = (1980, 1, 1, 0, 0, 0)
BLOCK = 2**20


class Stream:
    """What zipfile writes to: an output that is written from its beginning to its end."""

    def __init__(self, output: Output) -> None:
        self.output = output

    def write(self, content: bytes, /) -> int:
        """Write the next bytes."""
        self.output.write(content)
        return len(content)

    def flush(self) -> None:
        """Everything was written already."""

    def close(self) -> None:
        """Whoever opened the output closes it."""


def share_recording(source: Path, target: Path, command: str, title: str = "") -> Manifest:
    """Pack a recording with its page.

    Raises:
        RecordingError: no recording, or a damaged one.
        LookError: one that is too long for a page.
        HeadscopeError: the target cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="headscope-share-") as made:
        recording = load(source)
        name = title or source.resolve().stem
        shown = page(recording, Path(made) / PAGE, title=name)
        folder = source if (source / RECORDING_FILE).exists() else with_suffix(source, SUFFIX)
        if parts_in(source):  # of several processes: the one recording that they make
            folder = recording.save(Path(made) / "whole")
        inside = {RECORDING + file: folder / file for file in sorted(names_in(folder) or ())}
        return pack(target, {PAGE: shown, **inside}, name, command, recording.model)


def share_page(source: Path, target: Path, command: str, title: str = "") -> Manifest:
    """Pack a page that headscope wrote.

    Raises:
        RecordingError: it was not written by headscope, or is too large.
        HeadscopeError: the target cannot be written.
    """
    content = read_bounded(source, LARGEST_PAGE, RecordingError, follow=True)
    if MARK not in content[:4096]:
        raise RecordingError(f"{source}: was not written by headscope; give a page of it, or a recording's folder.")
    return pack(target, {PAGE: source}, title or source.stem, command, "")


def pack(target: Path, files: dict[str, Path], title: str, command: str, model: str) -> Manifest:
    """Write the zip, whole or not at all: tensors as they are, the page compressed, the manifest last."""
    entries: dict[str, FileEntry] = {}
    with writing("share", target) as output, zipfile.ZipFile(Stream(output), "w") as packed:
        for name, path in files.items():
            with path.open("rb") as source, packed.open(about(name), "w", force_zip64=True) as entry:
                digest, size = hashlib.sha256(), 0
                while block := source.read(BLOCK):
                    digest.update(block)
                    size += len(block)
                    entry.write(block)
            entries[name] = FileEntry(size, digest.hexdigest())
        content = manifest(title, command, model, entries)
        packed.writestr(about(NAME), encode(content))
    return content


def about(name: str) -> zipfile.ZipInfo:
    """The entry of a file."""
    entry = zipfile.ZipInfo(name, DATE)
    entry.compress_type = zipfile.ZIP_STORED if name.endswith(".safetensors") else zipfile.ZIP_DEFLATED
    entry.external_attr = 0o100644 << 16
    return entry
