"""Ends a process at every step by which it writes: before a call to the system, in the middle of a write, and after.

`python -m tests.safety.kills` runs all of them and prints how many there were.
"""

import os
import pickle
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from headscope.files import system

# Every function of `files.system` that changes a disk.
CALLS = (
    "create", "append_to", "write", "set_mode", "sync", "sync_folder", "replace", "rename", "exchange", "link",
    "remove", "make_folder", "make_folders", "remove_folder",
)  # fmt: skip
DEAD = 77


class Steps:
    """Counts the calls; ends the process at one of them."""

    def __init__(self, last: int | None = None, when: str = "before") -> None:
        self.done: list[str] = []
        self.last, self.when = last, when
        for name in CALLS:
            setattr(system, name, self.counted(name, getattr(system, name)))

    def counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self.done.append(name)
            here = len(self.done) == self.last
            if here and self.when == "before":
                os._exit(DEAD)
            if here and self.when == "half":
                os.write(args[0], bytes(memoryview(args[1]).cast("B")[: memoryview(args[1]).nbytes // 2]))
                os._exit(DEAD)
            result = call(*args, **options)
            if here:
                os._exit(DEAD)
            return result

        return counted


def in_child(action: Callable[[], Any], last: int | None = None, when: str = "before") -> list[str] | None:
    """The calls of an action that runs in a process of its own; None where it was ended at one."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            # The threads of the parent are not in the child: work that is shared out to them would wait for ever.
            torch.set_num_threads(1)
            steps = Steps(last, when)
            action()
            os.write(writer, pickle.dumps(steps.done))
            code = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, DEAD), f"the process ended with {code}"
    return pickle.loads(content) if code == 0 else None


@dataclass
class Case:
    """What is killed.

    Attributes:
        before: makes what is there already.
        action: writes; called in a process of its own.
        whole: asserts that what is there is the old or the new result, whole; it is told whether the action ended.
        clean: the names that may be in the folder in the end.
    """

    name: str
    before: Callable[[Path], Any]
    action: Callable[[Path], Any]
    whole: Callable[[Path, bool], Any]
    clean: set[str] = field(default_factory=set)


def places(steps: list[str]) -> Iterator[tuple[int, str]]:
    """Every place at which a process can end."""
    for number, name in enumerate(steps, 1):
        yield number, "before"
        if name == "write":
            yield number, "half"
        yield number, "after"


def kill_everywhere(case: Case, every: int = 1) -> int:
    """Kill an action at every place, or every so many; after each kill the rest is whole, and the next run clean.

    Returns how many times the process was ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        start.mkdir()
        case.before(start)
        here = Path(folder) / "here"
        shutil.copytree(start, here)
        steps = in_child(lambda: case.action(here))
        assert steps, f"{case.name}: nothing was written through headscope.files.system"
        assert {path.name for path in here.iterdir()} == case.clean
        case.whole(here, True)
        kills = 0
        for last, when in list(places(steps))[::every]:
            shutil.rmtree(here)
            shutil.copytree(start, here)
            assert in_child(lambda: case.action(here), last, when) is None, "steps differ from run to run"
            kills += 1
            where = f"{case.name}, {when} step {last} ({steps[last - 1]})"
            try:
                case.whole(here, False)
                assert in_child(lambda: case.action(here)) is not None
                case.whole(here, True)
                assert {path.name for path in here.iterdir()} == case.clean
            except Exception as error:
                raise AssertionError(f"{where}: {error!r}") from error
    return kills


if __name__ == "__main__":
    from tests.safety.cases import cases

    for one in cases():
        print(f"{one.name:<48} {kill_everywhere(one):>5} kills", flush=True)
