"""All tasks, in one tuple."""

from __future__ import annotations

from headscope.errors import TrainingError
from headscope.train.tasks.answer import Answer
from headscope.train.tasks.classify import Classify
from headscope.train.tasks.summarise import Summarise
from headscope.train.tasks.tag import Tag
from headscope.train.tasks.task import Task
from headscope.train.tasks.translate import Translate
from headscope.train.tasks.write import Write

TASKS: tuple[Task, ...] = (Classify(), Tag(), Answer(), Write(), Summarise(), Translate())


def task_named(name: str) -> Task:
    """The task of a name.

    Raises:
        TrainingError: there is none of that name.

    Example:
        >>> task_named("tag").auto_class
        'AutoModelForTokenClassification'
    """
    found = next((task for task in TASKS if task.name == name), None)
    if found is None:
        raise TrainingError(f"--task {name}: there is no such task. Give {', '.join(task.name for task in TASKS)}.")
    return found
