"""Where an example writes is checked, and made, before it begins to train."""

import importlib
from pathlib import Path

import pytest

from headscope.errors import HeadscopeError

NAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_place_that_cannot_be_written_is_said_at_once(name, tmp_path):
    (tmp_path / "file").write_text("in the way")
    main = importlib.import_module(f"examples.{name}").main
    places = {"folder": tmp_path / "file" / "new"} if name == "train_sharded" else {"to": tmp_path / "file" / "new"}
    task = {"task": "translate"} if name == "finetune_tasks" else {}
    with pytest.raises(HeadscopeError, match="the folder cannot be made: Not a directory|cannot be made: File exists"):
        main(**task, **places)
