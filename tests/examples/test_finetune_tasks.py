"""The example of every task: its rows are what the task reads, and a short training runs to its end."""

import itertools

import pytest

from examples import finetune_tasks
from headscope.train.data import read
from headscope.train.split import split
from headscope.train.tasks.listing import TASKS, task_named

FAST = ("classify", "tag", "translate")


@pytest.mark.parametrize(
    "task", [pytest.param(x.name, marks=() if x.name in FAST else pytest.mark.slow) for x in TASKS]
)
def test_the_rows_are_what_the_task_reads_and_the_unseen_ones_are_unseen(task, tmp_path):
    make, sides = getattr(finetune_tasks, task), []
    for unseen in (False, True):
        rows = itertools.islice(make(60, unseen), 60)
        path = finetune_tasks.table(tmp_path / f"{unseen}.jsonl", rows, 60)
        sides.append(read(path, task_named(task)))
        assert len(sides[-1]) >= 50
    assert not {task_named(task).group(x) for x in sides[0].rows} & {task_named(task).group(x) for x in sides[1].rows}
    assert split(sides[0], 0.2, 0)[1].rows
    assert set(finetune_tasks.WORDS) == set(finetune_tasks.ROWS) == {x.name for x in TASKS}


@pytest.mark.slow
@pytest.mark.parametrize("task", [x.name for x in TASKS])
def test_a_short_training(task, tmp_path):
    found = finetune_tasks.main(task, str(tmp_path / "out"), 40, 12, epochs=1, beams=1)
    assert set(task_named(task).shown_baselines) <= found.scores.keys()
    assert found.report.stat().st_size > 50_000
