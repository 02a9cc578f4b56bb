"""What does `import headscope` cost above `import torch`? Aim: at most 60 ms.

    python benchmarks/import_time.py [--rounds 15]

Each happens in a Python of its own, in turns; the start of Python itself is left out. A package is loaded when
the first of its names is used, so what the first use of `attend` and of `record` adds stands beside it.
"""

from __future__ import annotations

import subprocess
import sys
from statistics import median

from timing import Report, arguments, summary

CODE = "import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
TORCH, BOTH = "import torch", "import torch, headscope"
STATEMENTS = (TORCH, BOTH, f"{BOTH}; headscope.attend", f"{BOTH}; headscope.record")


def seconds(statement: str) -> float:
    """The time of one statement in a fresh Python."""
    command = [sys.executable, "-c", CODE.format(statement=statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Time the statements in turns and write the report."""
    given = arguments(__doc__ or "").parse_args()
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for statement in STATEMENTS:
        seconds(statement)  # compiles what is not compiled yet, and fills the cache of the disk
    for turn in range(given.rounds):
        for statement in STATEMENTS if turn % 2 == 0 else STATEMENTS[::-1]:
            times[statement].append(seconds(statement))
    above = [ours - theirs for ours, theirs in zip(times[BOTH], times[TORCH], strict=True)]
    report = Report("import_time", "What does import headscope cost above import torch?")
    rows = {statement: summary(times[statement], times[TORCH]) for statement in STATEMENTS}
    report.add("import", rows, difference_ms=round(median(above) * 1e3, 1), aim_ms=60)
    report.write()


if __name__ == "__main__":
    main()
