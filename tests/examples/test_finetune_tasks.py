"""The example of every task: its rows are what the task reads, and a short training runs to its end."""

import datetime
import itertools

import pytest

from examples import finetune_tasks
from headscope.train.data import read
from headscope.train.split import split
from headscope.train.tasks.listing import TASKS, task_named

FAST = ("classify", "tag", "translate")


def trained_as(name):
    """The task of an example."""
    return finetune_tasks.WORDS[name].get("task", name)


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=() if x in FAST else pytest.mark.slow) for x in finetune_tasks.WORDS]
)
def test_the_rows_are_what_the_task_reads_and_the_unseen_ones_are_unseen(name, tmp_path):
    make, task, sides = getattr(finetune_tasks, name), trained_as(name), []
    for unseen in (False, True):
        rows = itertools.islice(make(60, unseen), 60)
        path = finetune_tasks.table(tmp_path / f"{unseen}.jsonl", rows, 60)
        sides.append(read(path, task_named(task)))
        assert len(sides[-1]) >= 50
    assert not {task_named(task).group(x) for x in sides[0].rows} & {task_named(task).group(x) for x in sides[1].rows}
    assert split(sides[0], 0.2, 0)[1].rows
    assert set(finetune_tasks.WORDS) == set(finetune_tasks.ROWS)
    assert set(map(trained_as, finetune_tasks.WORDS)) == {x.name for x in TASKS}


def test_a_line_says_when_the_clocks_changed():
    course = [finetune_tasks.ahead(datetime.timedelta(minutes=x)) for x in (-210, -210, -150, *[-210] * 7, 0, 0)]
    assert course[0] == "3:30 behind"
    assert list(finetune_tasks.changes(course)) == ["2:30 behind from March to March", "0:00 ahead from November"]
    assert not list(finetune_tasks.changes(course[:1] * 12))


@pytest.mark.slow
@pytest.mark.parametrize("name", finetune_tasks.WORDS)
def test_a_short_training(name, tmp_path):
    found = finetune_tasks.main(name, str(tmp_path / "out"), 40, 12, epochs=1, beams=1)
    assert set(task_named(trained_as(name)).shown_baselines) <= found.scores.keys()
    assert found.report.stat().st_size > 50_000
