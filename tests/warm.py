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
import subprocess
import sys
from functools import cache
from pathlib import Path

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
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.communicate)  # nothing more to run: it ends
    return process


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in the folder in which it stands, as `python -u SCRIPT ARGUMENTS` does."""
    process = started()
    assert process.stdin is not None
    assert process.stdout is not None
    files = [script.with_suffix(ending) for ending in (".stdout", ".stderr")]
    process.stdin.write(json.dumps([str(script), *arguments, *map(str, files)]) + "\n")
    process.stdin.flush()
    code = int(process.stdout.readline())
    out, err = (file.read_text(encoding="utf-8") for file in files)
    for file in files:
        file.unlink()
    return subprocess.CompletedProcess([str(script), *arguments], code, out, err)


def program(script: str, *rest: str) -> None:
    """What the forked process does: it ends as the script does."""
    *arguments, out, err = rest
    for descriptor, file, mode in ((0, os.devnull, "rb"), (1, out, "wb"), (2, err, "wb")):
        with open(file, mode) as opened:
            os.dup2(opened.fileno(), descriptor)
    os.chdir(Path(script).parent)
    sys.argv, sys.path[0] = [script, *arguments], str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")
    sys.exit()


def main() -> None:
    """Import once, then fork a process for every line."""
    import headscope

    for name in headscope.__all__:
        getattr(headscope, name)
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            program(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
