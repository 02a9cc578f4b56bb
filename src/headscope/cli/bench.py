"""`headscope bench`: how fast attention is on this machine, beside its peers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from headscope.cli.json_output import JSON, emit
from headscope.cli.status import say
from headscope.errors import MissingExtra

HERE = Path(__file__).resolve()
# Files beside the benchmarks that are none themselves.
PARTS = ("timing", "memory", "table")


def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which benchmark; without one, they are listed.")] = "",
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="Where to measure.")] = "cpu",
    only: Annotated[str, typer.Option(metavar="TEXT", help="Run the cases whose name contains this.")] = "",
    rounds: Annotated[int, typer.Option(metavar="N", min=3, help="How many times every row is timed.")] = 15,
    as_json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Time attention beside its peers on this machine.

    Prints medians of ratios. Rows take turns in one process, so that only ratios within one run mean something.
    """
    known = {path.stem: path for path in sorted(folder().glob("*.py")) if path.stem not in PARTS}
    if not name and as_json:
        emit({"benchmarks": {stem: title(path) for stem, path in known.items()}})
        return
    if not name:
        for stem, path in known.items():
            say(f"{stem:12} {title(path)}")
        return
    if name not in known:
        raise typer.BadParameter(f"there is no benchmark {name!r}; there are {', '.join(known)}")
    command = [sys.executable, str(known[name]), "--device", device, "--rounds", str(rounds)]
    # With --json what it prints on the way goes to stderr.
    done = subprocess.run(
        command + (["--only", only] if only else []), check=False, stdout=sys.stderr if as_json else None
    )
    if done.returncode:
        raise typer.Exit(done.returncode)
    if as_json:
        emit(json.loads((folder() / "results" / f"{name}-{device.split(':')[0]}.json").read_text()))


def title(path: Path) -> str:
    """The question of a benchmark: its first line."""
    return path.read_text().splitlines()[0].strip('"')


def folder() -> Path:
    """Where the benchmarks lie: in an installed package, or in the checkout."""
    for place in (HERE.parents[1] / "benchmarks", HERE.parents[3] / "benchmarks"):
        if (place / "timing.py").exists():
            return place
    raise MissingExtra(
        "bench: the benchmarks are not installed here; run them from a checkout: python benchmarks/attend.py"
    )
