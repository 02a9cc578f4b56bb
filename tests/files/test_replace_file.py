"""A file is there whole or not at all, and nothing but a plain file is ever replaced."""

import os
import socket
import stat
import threading

import pytest

from headscope.errors import HeadscopeError
from headscope.files import system
from headscope.files.replace_file import append, write, writing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path):
    assert write("page", tmp_path / "a.html", b"one") == tmp_path / "a.html"
    write("page", str(tmp_path / "a.html"), b"two")
    assert (tmp_path / "a.html").read_bytes() == b"two"
    assert names(tmp_path) == ["a.html"]


def test_permissions_of_the_file_that_is_replaced_stay(tmp_path):
    file = tmp_path / "a.html"
    file.write_text("old")
    file.chmod(0o640)
    write("page", file, b"new")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_an_exception_in_the_block_keeps_the_old_file(tmp_path):
    write("page", tmp_path / "a.csv", b"old")

    def half():
        with writing("page", tmp_path / "a.csv") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert (tmp_path / "a.csv").read_bytes() == b"old"
    assert names(tmp_path) == ["a.csv"]


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "a.html").symlink_to(tmp_path / "real" / "b.html")
    for content in (b"one", b"two"):
        write("page", tmp_path / "a.html", content)
        assert (tmp_path / "a.html").is_symlink()
        assert (tmp_path / "real" / "b.html").read_bytes() == content
    assert names(tmp_path) == ["a.html", "real"]
    assert names(tmp_path / "real") == ["b.html"]


def test_what_is_no_file_is_never_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.html")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket.html")
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "device.html").symlink_to("/dev/null")
    (tmp_path / "circle.html").symlink_to("circle.html")
    before = names(tmp_path)
    for name, kind in (("pipe", "a pipe"), ("socket", "a socket"), ("folder", "a folder"), ("device", "a device")):
        with pytest.raises(HeadscopeError, match=f"{name}.html is {kind}[,;].*give the path of a file"):
            write("page", f"{name}.html", b"x")
        with pytest.raises(HeadscopeError, match=f"{name}.html is {kind}"):
            append("page", tmp_path / f"{name}.html", b"x")
    with pytest.raises(HeadscopeError, match="circle.html (is a link to itself|cannot be written)"):
        write("page", "circle.html", b"x")
    assert names(tmp_path) == before
    assert stat.S_ISFIFO(os.lstat("pipe.html").st_mode)


def test_a_file_that_is_read_only_stays(tmp_path, monkeypatch):
    file = tmp_path / "a.html"
    file.write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(HeadscopeError, match=r"a.html is read-only, so it stays; give another path"):
        write("page", file, b"new")
    assert file.read_text() == "old"


def test_threads_that_write_the_same_file_leave_one_whole(tmp_path):
    contents = [bytes([65 + n]) * 300_000 for n in range(6)]
    failed = []

    def run(content):
        try:
            for _ in range(5):
                write("page", tmp_path / "a.html", content)
        except HeadscopeError as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert (tmp_path / "a.html").read_bytes() in contents
    assert names(tmp_path) == ["a.html"]


def test_a_path_that_is_no_utf_8(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.html"
    write("page", os.fsdecode(path), b"x")
    assert os.listdir(os.fsencode(tmp_path)) == [b"caf\xe9.html"]


@pytest.mark.parametrize("step", ["create", "write", "sync", "replace"])
def test_a_disk_that_fails_at_any_step(tmp_path, monkeypatch, step):
    write("page", tmp_path / "a.html", b"old")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(system, step, fail)
    with pytest.raises(HeadscopeError, match=r"cannot be written \(No space left on device\); the folder is"):
        write("page", tmp_path / "a.html", b"new")
    assert (tmp_path / "a.html").read_bytes() == b"old"
    assert names(tmp_path) == ["a.html"]


def test_lines_are_appended(tmp_path):
    for line in (b"one\n", b"two\n"):
        append("Watch", tmp_path / "a.jsonl", line)
    assert (tmp_path / "a.jsonl").read_bytes() == b"one\ntwo\n"
