"""Run the pages of docs/ as a reader would, from top to bottom: python docs/run_pages.py [PAGE ...]

All ```python blocks of a page run in one process of their own. A ```text block right below such a block is its output;
`...` in it stands for anything; the site shows what was printed. Of the pages in COMMANDS the ```bash blocks run as
well, where they stand. The pages of the lesson run as the notebooks that are made of them. Without a page all of them
run, as many at once as there are cores, and a table says how long each took; the site's build does the same.
"""

import argparse
import doctest
import functools
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from write_notebooks import PICTURE, notebook

DOCS = Path(__file__).parent
BLOCK = re.compile(
    r"^```(?P<language>python|bash)\n(?P<code>.*?)^```\n(?:\n*^```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
# Printed after every block, to tell the outputs apart.
END = "\x1e"
# The commands of this very Python; torchrun takes a free port, as pages may run side by side.
PYTHON = shlex.quote(sys.executable)
SHELL = f"""headscope() {{ {PYTHON} -m headscope "$@"; }}
torchrun() {{ {PYTHON} -m torch.distributed.run --standalone "$@"; }}
"""
# Pages whose commands run as well, on what their code makes.
COMMANDS = {"audio", "corpus", "images", "share", "torchrun"}
# The longest first: the last to end would otherwise run alone.
LONGEST = ("images", "share", "corpus", "audio", "figures", "attention", "training", "3-three-places")
# What the blocks of a page printed, beside what the page made.
PRINTED = "printed.json"
# Seconds; a page that takes longer hangs. A minute is the most that one takes on two idle cores.
LIMIT = 900
Run = Callable[[Path], "subprocess.CompletedProcess[str]"]


class PageFailed(AssertionError):
    """The code of a page failed, or prints something else than the page shows."""


def blocks(text: str, *, commands: bool = False) -> list[re.Match[str]]:
    """The blocks of a page that run."""
    return [block for block in BLOCK.finditer(text) if commands or block["language"] == "python"]


def all_pages() -> list[Path]:
    """Every page with a block that runs."""
    return [page for page in sorted(DOCS.rglob("*.md")) if blocks(page.read_text(encoding="utf-8"))]


def programs(text: str) -> dict[str, str]:
    """The programs that commands of a page run, by their names: the Python block above the command."""
    found, above = {}, ""
    for block in blocks(text, commands=True):
        if block["language"] == "python":
            above = block["code"]
        else:
            found |= dict.fromkeys(re.findall(r"\b\w+\.py\b", block["code"]), above)
    return found


def program(text: str, *, commands: bool = False) -> str:
    """The code of a page, every line where it stands on the page, so that a traceback names the right one."""
    lines = [""] * len(text.splitlines())
    elsewhere = programs(text).values() if commands else ()
    for block in blocks(text, commands=commands):
        first = text[: block.start("code")].count("\n")
        code = [] if block["code"] in elsewhere else block["code"].splitlines()
        if block["language"] == "bash":
            code = [f"__import__('subprocess').run(['bash', '-euc', {SHELL + block['code']!r}], check=True)"]
        lines[first : first + len(code)] = code
        lines[text[: block.end("code")].count("\n")] = f"print({END!r})"
    return "\n".join(lines)


def fresh(script: Path) -> subprocess.CompletedProcess[str]:
    """Run a script where it stands, in an interpreter of its own."""
    # Unbuffered: what the page prints stands before what its next command prints.
    command = [sys.executable, "-u", script.name]
    return subprocess.run(command, cwd=script.parent, capture_output=True, encoding="utf-8", timeout=LIMIT, check=False)


def check(page: Path, folder: Path, *, commands: bool = False, run: Run = fresh) -> None:
    """Run a page in a folder and compare the outputs that it shows.

    Args:
        commands: whether its ```bash blocks run as well.
        run: runs a script where it stands.

    Raises:
        PageFailed: its code failed, or printed something else.
    """
    text = page.read_text(encoding="utf-8")
    for name, code in programs(text).items() if commands else ():
        (folder / name).write_text(code, encoding="utf-8")
    script = folder / f"page-{page.stem}.py"
    script.write_text(program(text, commands=commands), encoding="utf-8")
    done = run(script)
    if done.returncode:
        raise PageFailed(f"{page}: its code failed.\n{done.stderr[-5000:]}")
    compare(page, blocks(text, commands=commands), done.stdout.split(f"{END}\n"), folder)


def check_notebook(page: Path, folder: Path) -> None:
    """Run a page of the lesson as a notebook in a kernel of its own, and compare the outputs that it shows.

    Raises:
        PageFailed: a cell failed, printed something else, or does not show its picture.
    """
    import nbclient
    import nbformat

    made = nbformat.reads(json.dumps(notebook(page)), as_version=4)
    place = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(made, timeout=LIMIT, startup_timeout=LIMIT, resources=place)
    try:
        # What goes wrong in a cell comes as an error of the cell; on stderr the kernel speaks of its own transport.
        client.execute(stderr=subprocess.DEVNULL)
    except nbclient.exceptions.CellExecutionError as error:
        raise PageFailed(f"{page}: its code failed.\n{str(error)[-5000:]}") from None
    text = page.read_text(encoding="utf-8")
    outputs = [cell.outputs for cell in made.cells if cell.cell_type == "code"]
    compare(page, blocks(text), [printed(of_cell) for of_cell in outputs], folder)
    shown = sum("image/png" in output.get("data", {}) for of_cell in outputs for output in of_cell)
    if shown != len(PICTURE.findall(text)):
        raise PageFailed(f"{page}: it has {len(PICTURE.findall(text))} pictures, and its notebook shows {shown}.")


def printed(outputs: Sequence[Any]) -> str:
    """What a cell printed."""
    return "".join(part.text for part in outputs if part.output_type == "stream" and part.name == "stdout")


def compare(page: Path, of_page: Sequence[re.Match[str]], outputs: Sequence[str], folder: Path) -> None:
    """Compare what a page shows with what its blocks printed, and keep the latter in its folder."""
    (folder / PRINTED).write_text(json.dumps([found.replace(f"{folder}/", "") for found in outputs]), encoding="utf-8")
    for block, found in zip(of_page, outputs, strict=False):
        shown = block["output"]
        if shown is not None and not doctest.OutputChecker().check_output(shown, found, doctest.ELLIPSIS):
            raise PageFailed(f"{page}: it shows\n{shown}\nand prints\n{found}")


def with_outputs(text: str, folder: Path, *, commands: bool = False) -> str:
    """A page with all that its blocks printed when it ran in a folder, where it only shows a part of that (`...`)."""
    parts, at = [], 0
    outputs = json.loads((folder / PRINTED).read_text(encoding="utf-8"))
    for block, found in zip(blocks(text, commands=commands), outputs, strict=False):
        if "..." in (block["output"] or ""):
            parts += [text[at : block.start("output")], found.rstrip(), "\n"]
            at = block.end("output")
    return "".join([*parts, text[at:]])


def run_all(pages: Sequence[Path], folder: Path, log: Callable[[str], None] = print) -> dict[Path, Path]:
    """Run pages, as many at once as there are cores; the folder in which each ran.

    Raises:
        PageFailed: one of them failed; no further page is begun.
    """
    cores = os.cpu_count() or 1
    workers = min(4, cores)
    os.environ.setdefault("OMP_NUM_THREADS", str(cores // workers))
    order = sorted(pages, key=lambda page: LONGEST.index(page.stem) if page.stem in LONGEST else len(LONGEST))
    folders = {page: folder / page.relative_to(DOCS).with_suffix("") for page in order}
    start = time.monotonic()
    with ThreadPoolExecutor(workers) as together:
        runs = [together.submit(timed, page, folders[page], log) for page in order]
        try:
            for run in runs:
                run.result()
        finally:
            together.shutdown(cancel_futures=True)
    log(f"{len(order)} pages in {time.monotonic() - start:.0f} s, {workers} at once")
    return folders


def timed(page: Path, folder: Path, log: Callable[[str], None]) -> None:
    """Run a page in a new folder, and log how long it took."""
    folder.mkdir(parents=True)
    start = time.monotonic()
    if page.parent.name == "lesson":
        check_notebook(page, folder)
    else:
        check(page, folder, commands=page.stem in COMMANDS)
    log(f"{time.monotonic() - start:6.1f} s  {page.relative_to(DOCS)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=lambda name: Path(name).resolve(), metavar="PAGE")
    asked = parser.parse_args().pages or all_pages()
    with tempfile.TemporaryDirectory(prefix="headscope-pages-") as place:
        run_all(asked, Path(place), functools.partial(print, flush=True))
