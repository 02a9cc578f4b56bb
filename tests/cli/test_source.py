"""TEXT|FILE|- -> text."""

import errno
import io
import os
from pathlib import Path

import pytest

from headscope.cli import source
from headscope.cli.source import read_text
from headscope.errors import HeadscopeError


class Stdin:
    def __init__(self, content):
        self.buffer = io.BytesIO(content)


def test_a_text_is_itself():
    assert read_text("The animal didn't cross.") == "The animal didn't cross."


def test_a_text_that_no_file_could_be_named_is_itself():
    assert read_text("long " * 5000) == "long " * 5000
    assert read_text("zero\0byte") == "zero\0byte"


def test_the_name_of_a_file_is_that_file(tmp_path, monkeypatch):
    (tmp_path / "story.txt").write_text("Once upon a time …\n", encoding="utf-8-sig")
    monkeypatch.chdir(tmp_path)
    assert read_text("story.txt") == "Once upon a time …\n"
    assert read_text(str(tmp_path / "story.txt")) == "Once upon a time …\n"


def test_a_file_without_an_ending_is_a_file_too(tmp_path, monkeypatch):
    (tmp_path / "README").write_text("read me")
    monkeypatch.chdir(tmp_path)
    assert read_text("README") == "read me"


def test_standard_input_that_is_closed(monkeypatch):
    for closed in (None, io.TextIOWrapper(io.BytesIO())):
        if closed is not None:
            closed.close()
        monkeypatch.setattr(source.sys, "stdin", closed)
        with pytest.raises(HeadscopeError, match="standard input is closed. Pipe a text into the command, or give"):
            source.standard_input()


def test_standard_input(monkeypatch):
    monkeypatch.setattr(source.sys, "stdin", Stdin(b"from a pipe"))
    assert read_text("-") == "from a pipe"


@pytest.mark.parametrize("given", ["", "   ", "\n\t"])
def test_an_empty_text(given):
    with pytest.raises(HeadscopeError, match="the text is empty. Give at least one word"):
        read_text(given)


def test_an_empty_file_and_an_empty_pipe(tmp_path, monkeypatch):
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(HeadscopeError, match="empty.txt is empty. Give at least one word"):
        read_text(str(tmp_path / "empty.txt"))
    monkeypatch.setattr(source.sys, "stdin", Stdin(b""))
    with pytest.raises(HeadscopeError, match="standard input is empty. Give at least one word"):
        read_text("-")


@pytest.mark.parametrize("given", ["notes.txt", "no/such/file", "./story"])
def test_a_file_that_does_not_exist_is_not_taken_for_a_text(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HeadscopeError, match="there is no file .* if these characters are the text itself, pipe them"):
        read_text(given)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in the file system here")
def test_a_name_of_what_is_no_file_is_not_taken_for_a_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    for name, target in (("loop", "loop"), ("nowhere", "no/such"), ("to-a-pipe", "pipe"), ("null", "/dev/null")):
        os.symlink(target, name)
    for name, kind in (
        ("pipe", "a pipe"), ("to-a-pipe", "a pipe"), ("loop", "a link that leads nowhere"), ("/dev/null", "a device"),
        ("nowhere", "a link that leads nowhere"), ("null", "a device"),
    ):  # fmt: skip
        with pytest.raises(HeadscopeError, match=f"{name} is {kind}, not a file. Give a file, or pipe the text into"):
            read_text(name)
    assert read_text("pipe and loop") == "pipe and loop"


def test_what_a_shell_makes_of_a_command_is_named_as_a_pipe():
    """`headscope view <(command)` gives the name of a pipe."""
    reader, writer = os.pipe()
    try:
        with pytest.raises(HeadscopeError, match="/dev/fd/.* is a pipe, not a file"):
            read_text(f"/dev/fd/{reader}")
    finally:
        os.close(reader)
        os.close(writer)


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "broken.txt").write_text("a")

    def refuse(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(HeadscopeError, match="broken.txt: cannot be read: Input/output error. Give another file"):
        read_text(str(tmp_path / "broken.txt"))


@pytest.mark.parametrize("given", ["caf\udce9 au lait", "\ud800"])
def test_a_text_that_is_no_utf_8(given):
    with pytest.raises(HeadscopeError, match="the text is not UTF-8, so no tokenizer reads it. Put it into a file and"):
        read_text(given)


def test_words_that_look_like_a_file_within_a_text_are_text():
    assert read_text("read notes.txt and/or README.md") == "read notes.txt and/or README.md"


def test_a_folder(tmp_path):
    with pytest.raises(HeadscopeError, match="is a folder. Give a text, a text file, or - for standard input"):
        read_text(f"{tmp_path}/")


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(HeadscopeError, match=r"picture.png is a picture \(PNG\), not a text. Give it with a --model"):
        read_text(str(tmp_path / "picture.png"))


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "LARGEST", 2**20)
    (tmp_path / "large.txt").write_bytes(b"a" * (2**20 + 1))
    with pytest.raises(HeadscopeError, match="has more than 1 MiB, which no model reads. Give a shorter text"):
        read_text(str(tmp_path / "large.txt"))
