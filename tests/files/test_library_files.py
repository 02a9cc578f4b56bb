"""What other libraries write takes its place file by file, whole; what is in the way that is no file stays."""

import errno
import os

import pytest

from headscope.errors import HeadscopeError
from headscope.files import system
from headscope.files.library_files import library_files


def test_files_and_folders_are_moved_and_those_of_others_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "config.json").write_text("old")
    (tmp_path / "config.json").chmod(0o600)
    with library_files("here", tmp_path) as beside:
        (beside / "config.json").write_text("new")
        (beside / "templates").mkdir()
        (beside / "templates" / "chat_template.jinja").write_text("new")
        assert (tmp_path / "config.json").read_text() == "old"
    assert (
        (tmp_path / "config.json").read_text() == (tmp_path / "templates" / "chat_template.jinja").read_text() == "new"
    )
    assert (tmp_path / "config.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_library_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "config.json").write_text("old")

    def fail():
        with library_files("here", tmp_path) as beside:
            (beside / "config.json").write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(HeadscopeError, match="cannot be written .No space left on device.: make room for it"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == "old"


def test_a_folder_in_the_way_is_not_replaced(tmp_path):
    (tmp_path / "model.safetensors").mkdir()

    def save():
        with library_files("here", tmp_path) as beside:
            (beside / "model.safetensors").write_text("new")

    with pytest.raises(HeadscopeError, match="here: .*model.safetensors is a folder"):
        save()
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_what_a_dead_process_left_goes(tmp_path):
    left = tmp_path / ".headscope-1-0123456789ab.part"
    left.mkdir()
    (left / "model.safetensors").write_text("half")
    (left / "tokenizer.json").write_text("half")
    with library_files("here", tmp_path) as beside:
        (beside / "config.json").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"] or not system.CAN_LOCK
