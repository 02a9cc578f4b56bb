"""What the system does with names, where it has renameat2 and where it has not."""

import errno

import pytest

from headscope.files import system


@pytest.mark.parametrize("has_it", [True, False])
def test_a_name_that_something_has_is_not_taken(tmp_path, monkeypatch, has_it):
    if not has_it:
        monkeypatch.setattr(system, "_renameat2", lambda *_: False)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with pytest.raises(FileExistsError, match="File exists: .*o"):
        system.rename(tmp_path / "one", tmp_path / "other")
    system.rename(tmp_path / "one", tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"other", "new"}


def test_what_the_system_says_is_raised(tmp_path):
    with pytest.raises(OSError, match="No such file or directory: .*none.* -> .*new") as error:
        system.rename(tmp_path / "none", tmp_path / "new")
    assert error.value.errno == errno.ENOENT
