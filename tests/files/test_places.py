"""Where results will be written: checked before the work begins."""

import os
from pathlib import Path

import pytest

from headscope.errors import HeadscopeError
from headscope.files.places import check_file, check_folder, path_of


def test_a_path_as_a_person_writes_it(tmp_path):
    assert path_of("-o", "~/x.html") == Path.home() / "x.html"
    assert path_of("-o", str(tmp_path / "no" / "x.html")) == tmp_path / "no" / "x.html"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "-o: the name is empty. Give the name of a file or folder"),
        (" \t", "-o: the name is empty"),
        ("~no-such-user/x", "~no-such-user/x: there is no user of that name here. Give the path in full"),
        ("a\x00b", "a zero byte cannot be in a name. Give another name"),
        ("\ud800.html", "half of a letter cannot be in a name. Give another name"),
        (300 * "x", r"-o …x+: File name too long. Give another path"),
    ],
)
def test_names_that_no_file_can_have(name, message):
    with pytest.raises(HeadscopeError, match=message):
        path_of("-o", name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in the file system here")
def test_what_is_in_the_way(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HeadscopeError, match="is a pipe, which is never replaced; give the path of a file"):
        check_file("-o", tmp_path / "pipe")
    with pytest.raises(HeadscopeError, match="there is no folder .*no. Make it first, or give another path"):
        check_file("-o", tmp_path / "no" / "x.html")
    with pytest.raises(HeadscopeError, match="-o .*x+: File name too long. Give another path"):
        check_file("-o", tmp_path / (300 * "x"))


@pytest.mark.parametrize("name", ["/", "/.."])
def test_no_name_for_a_folder(name):
    with pytest.raises(HeadscopeError, match="this is no name for a new folder. Give one, such as out"):
        check_folder("--to", Path(name))


def test_a_link_to_itself_is_no_folder_and_no_defect(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert check_folder("-o", tmp_path / "loop") == tmp_path / "loop"
    with pytest.raises(HeadscopeError, match="is a link to itself, which is never replaced"):
        check_file("-o", tmp_path / "loop")
