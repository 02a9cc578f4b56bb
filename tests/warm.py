"""Programs in processes of their own, forked from one process that has imported what nearly all of them import.

A program that a page shows runs for a tenth of a second, and imports for three. It sees what a fresh interpreter shows
it, its folder, its arguments and an empty `__main__`; only the libraries are in memory already. Tests that are about
starting up, or about what is imported, start an interpreter.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
IMPORTED = (
    "headscope.cli.app",
    "headscope.hf.models",
    "headscope.nn.recipes",
    "headscope.recording.session",
    "headscope.view.page",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
)


@cache
def started() -> subprocess.Popen[str]:
    """The process that forks, one for each process that runs tests."""
    command = [sys.executable, "-u", "-m", "tests.warm"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    atexit.register(process.communicate)  # nothing more to run: it ends
    return process


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in the folder in which it stands, as `python -u SCRIPT ARGUMENTS` does."""
    return asked(str(script), arguments, folder=script.parent, module=False)


def run_module(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module in the root of the repository, as `python -u -m NAME ARGUMENTS` does; the compiler is there."""
    return asked(name, arguments, folder=ROOT, module=True)


def asked(program: str, arguments: Sequence[str], *, folder: Path, module: bool) -> subprocess.CompletedProcess[str]:
    """Have a program run."""
    process = started()
    assert process.stdin is not None
    assert process.stdout is not None
    with tempfile.TemporaryDirectory(prefix="headscope-warm-") as beside:
        outputs = [str(Path(beside, name)) for name in ("stdout", "stderr")]
        test = os.environ.get("PYTEST_CURRENT_TEST", "")
        job = Job(program, list(arguments), str(folder), module, outputs, test)
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        try:
            code = int(process.stdout.readline())
        except BaseException:  # the time of the test is over: the next one starts anew
            os.killpg(process.pid, signal.SIGKILL)
            started.cache_clear()
            raise
        out, err = (Path(output).read_text(encoding="utf-8") for output in outputs)
    return subprocess.CompletedProcess([program, *arguments], code, out, err)


class Job(NamedTuple):
    """A program to run: a script or a module, where, the files of what it prints, and the test that runs it."""

    program: str
    arguments: list[str]
    folder: str
    module: bool
    outputs: list[str]
    test: str


def become(job: Job) -> None:
    """What the forked process does: it ends as the program does."""
    out, err = job.outputs
    for descriptor, file, mode in ((0, os.devnull, "rb"), (1, out, "wb"), (2, err, "wb")):
        with open(file, mode) as opened:
            os.dup2(opened.fileno(), descriptor)
    os.chdir(job.folder)
    os.environ["PYTEST_CURRENT_TEST"] = job.test
    sys.argv, sys.path[0] = [job.program, *job.arguments], job.folder
    if job.module:
        runpy.run_module(job.program, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(job.program, run_name="__main__")
    sys.exit()


def main() -> None:
    """Import once, then fork a process for every line."""
    import headscope

    for name in headscope.__all__:
        getattr(headscope, name)
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        job = Job(*json.loads(line))
        if job.module:
            importlib.import_module("torch._dynamo")
        child = os.fork()
        if not child:
            become(job)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
