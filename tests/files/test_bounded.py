"""What came from elsewhere is read up to a bound."""

import os

import pytest

from headscope.errors import RecordingError
from headscope.files.bounded import plain, read_bounded


def test_up_to_the_bound(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5, RecordingError) == b"12345"
    with pytest.raises(RecordingError, match="is 5 bytes long and may have 4"):
        read_bounded(tmp_path / "a", 4, RecordingError)


def test_only_plain_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a pipe"), ("link", "a link"), (".", "a folder")):
        with pytest.raises(RecordingError, match=f"is {kind} and not a plain file; nothing outside its folder"):
            plain(tmp_path / name, RecordingError)
    with pytest.raises(RecordingError, match="cannot be read: No such file"):
        read_bounded(tmp_path / "none", 4, RecordingError)


def test_what_may_not_be_opened(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"1")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("headscope.files.bounded.os.open", refuse)
    with pytest.raises(RecordingError, match="a: cannot be read: Permission denied"):
        read_bounded(tmp_path / "a", 4, RecordingError)
