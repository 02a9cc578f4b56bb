"""A folder is there whole or not at all; what others put into it stays; what dead processes left goes."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headscope.errors import HeadscopeError, RecordingError
from headscope.files import system
from headscope.files.claims import PART, claim, release, sweep
from headscope.files.replace_folder import Folder, aside_of, found, repair

MARK = b"ours"


def owned(path: Path):
    """A folder is ours when its `recording.json` says so."""
    file = path / "recording.json"
    return {"recording.json", "layer-00000.safetensors"} if file.exists() and file.read_bytes()[:4] == MARK else None


def save(target: Path, content: bytes, *, overwrite: bool = True) -> Path:
    folder = Folder(target, owned, overwrite=overwrite, fail=RecordingError)
    try:
        for name in ("layer-00000.safetensors", "recording.json"):
            with folder.writing(name) as file:
                file.write(MARK + content)
        return folder.commit()
    finally:
        folder.abandon()


def content(target: Path) -> set[bytes]:
    return {(target / name).read_bytes()[4:] for name in ("layer-00000.safetensors", "recording.json")}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["exchange", "aside"])
def way(request, monkeypatch):
    """With renameat2, and on a system that has it not."""
    if request.param == "aside":
        monkeypatch.setattr(system, "_renameat2", lambda *_: False)
    return request.param


def test_a_folder_is_written_and_replaced(tmp_path, way):
    assert save(tmp_path / "x", b"one") == tmp_path / "x"
    save(tmp_path / "x", b"two")
    assert content(tmp_path / "x") == {b"two"}
    assert names(tmp_path) == ["x"]
    with pytest.raises(RecordingError, match="exists already; give another name, or overwrite=True"):
        save(tmp_path / "x", b"three", overwrite=False)
    assert names(tmp_path) == ["x"]


def test_files_of_others_stay_in_it(tmp_path, way):
    save(tmp_path / "x", b"one")
    (tmp_path / "x" / "notes.txt").write_text("mine")
    save(tmp_path / "x", b"two")
    assert content(tmp_path / "x") == {b"two"}
    assert (tmp_path / "x" / "notes.txt").read_text() == "mine"
    assert names(tmp_path) == ["x"]


def test_folders_and_links_of_others_are_refused(tmp_path):
    save(tmp_path / "x", b"one")
    (tmp_path / "x" / "more").mkdir()
    with pytest.raises(RecordingError, match="holds more, which headscope did not write and cannot take over"):
        save(tmp_path / "x", b"two")
    assert content(tmp_path / "x") == {b"one"}


def test_a_file_that_cannot_get_a_second_name_is_refused(tmp_path, monkeypatch):
    save(tmp_path / "x", b"one")
    (tmp_path / "x" / "notes.txt").write_text("mine")

    def fail(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(system, "link", fail)
    with pytest.raises(RecordingError, match=r"holds notes.txt, .*cannot take over \(Operation not permitted\)"):
        save(tmp_path / "x", b"two")
    assert content(tmp_path / "x") == {b"one"}
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("kind", ["file", "fifo", "link", "folder", "likeness"])
def test_what_headscope_did_not_write_is_never_replaced(tmp_path, kind):
    target = tmp_path / "x"
    if kind == "file":
        target.write_text("mine")
    elif kind == "fifo":
        os.mkfifo(target)
    elif kind == "link":
        save(tmp_path / "y", b"one")
        target.symlink_to(tmp_path / "y")
    else:
        target.mkdir()
        (target / ("recording.json" if kind == "likeness" else "thesis.txt")).write_text("mine")
    before = names(tmp_path)
    with pytest.raises(RecordingError, match="headscope did not write it, so it is not overwritten"):
        save(target, b"two")
    assert names(tmp_path) == before
    if target.is_dir() and not target.is_symlink():
        assert [path.read_text() for path in target.iterdir()] == ["mine"]


def test_a_folder_that_became_anothers_meanwhile_is_not_replaced(tmp_path):
    save(tmp_path / "x", b"one")
    folder = Folder(tmp_path / "x", owned, overwrite=True, fail=RecordingError)
    (tmp_path / "x" / "recording.json").write_text("not ours any more")
    with pytest.raises(RecordingError, match="headscope did not write it"):
        folder.commit()
    folder.abandon()
    assert names(tmp_path) == ["x"]


def test_something_that_always_stands_in_the_way(tmp_path, monkeypatch):
    def fail(*_):
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(system, "rename", fail)
    with pytest.raises(HeadscopeError, match="is being replaced by others all the time"):
        save(tmp_path / "x", b"one")
    assert names(tmp_path) == []


def test_threads_that_save_at_the_same_place_leave_one_whole(tmp_path, way):
    contents = [bytes([65 + n]) * 10_000 for n in range(5)]
    failed = []

    def run(mine):
        try:
            for _ in range(5):
                save(tmp_path / "x", mine)
        except HeadscopeError as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(mine,)) for mine in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(content(tmp_path / "x")) == 1
    assert content(tmp_path / "x") <= set(contents)
    assert names(tmp_path) == ["x"]


def test_an_old_folder_that_was_put_aside_is_found_and_put_back(tmp_path):
    save(tmp_path / "x", b"one")
    (tmp_path / "x").rename(aside_of(tmp_path / "x"))
    assert content(found(tmp_path / "x")) == {b"one"}
    repair(tmp_path / "x")
    assert names(tmp_path) == ["x"]
    (tmp_path / "x").rename(aside_of(tmp_path / "x"))
    save(tmp_path / "x", b"two")
    assert names(tmp_path) == ["x"]
    save(aside_of(tmp_path / "x"), b"one")
    assert content(found(tmp_path / "x")) == {b"two"}
    save(tmp_path / "x", b"three")
    assert names(tmp_path) == ["x"]


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_writes_stays(tmp_path):
    program = (
        "import sys, os; from pathlib import Path; from headscope.files.claims import claim; "
        f"here = Path({str(tmp_path)!r}); claim(here); made = claim(here, a_folder=True); "
        "(made.path / 'layer-00000.safetensors').write_text('half'); print('made', flush=True); sys.stdin.read(); "
        "os._exit(1)"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as process:
        assert process.stdout.readline() == "made\n"
        sweep(tmp_path)
        assert len(names(tmp_path)) == 2
        process.stdin.close()
    mine = claim(tmp_path)
    (tmp_path / ".headscope-notes.part").write_text("a stranger's")
    sweep(tmp_path)
    assert names(tmp_path) == sorted([mine.path.name, ".headscope-notes.part"])
    release(mine)


def test_a_strangers_file_in_a_leftover_is_not_removed(tmp_path):
    made = claim(tmp_path, a_folder=True)
    (made.path / "layer-00000.safetensors").write_text("half")
    (made.path / "thesis.txt").write_text("mine")
    release(made)
    sweep(tmp_path)
    assert names(made.path) == ["thesis.txt"]


def test_a_link_that_has_the_name_of_a_leftover_is_left_alone(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "layer-00000.safetensors").write_text("mine")
    link = tmp_path / ".headscope-1-0123456789ab.part"
    assert PART.fullmatch(link.name)
    link.symlink_to(tmp_path / "real")
    sweep(tmp_path)
    assert names(tmp_path / "real") == ["layer-00000.safetensors"]
