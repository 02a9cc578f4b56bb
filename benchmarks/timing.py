"""The stopwatch that every benchmark shares: rows that do the same work, timed in turns in one process.

A machine's speed drifts, so rows take turns: A B C, then B C A, and so on. Every round gives one ratio for each row,
and what is reported is the median of these ratios and their quartiles. Times are only ever quoted as ratios.

```python
from timing import Report, compare

report = Report("layer", "Is the layer faster than its peers?", device)
report.add("(1, 4096, 768)", compare({"headscope": ours, "torch": theirs}), dtype="bfloat16")
report.write()     # benchmarks/results/layer-cpu.json, and the same as Markdown on the screen
```
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles

import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "x-transformers", "numpy", "triton")

Work = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """One row of a comparison.

    Attributes:
        seconds: the median time of one call.
        ratio: the median, over the rounds, of this row's time over the first row's; above 1 the first row is faster.
        low, high: the quartiles of these ratios.
    """

    seconds: float
    ratio: float
    low: float
    high: float


def compare(
    rows: Mapping[str, Work],
    *,
    rounds: int = 15,
    warmup: int = 2,
    least: float = 0.02,
    before: Work | None = None,
    device: str = "cpu",
) -> dict[str, Timing]:
    """Time callables in turns; the first row is the one that the ratios are relative to.

    Args:
        rounds: how many times every row is timed.
        warmup: calls of every row that are not timed.
        least: seconds that one sample lasts at least; a short call is repeated within its sample.
        before: runs before every sample, outside the time.
    """
    for work in rows.values():
        for _ in range(warmup):
            work()
    repeats = {name: max(1, round(least / max(sample(work, 1, device), 1e-7))) for name, work in rows.items()}
    times: dict[str, list[float]] = {name: [] for name in rows}
    names = list(rows)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                if before is not None:
                    before()
                times[name].append(sample(rows[name], repeats[name], device))
    finally:
        if collecting:
            gc.enable()
    return {name: summary(times[name], times[names[0]]) for name in names}


def sample(work: Work, repeats: int, device: str) -> float:
    """Seconds of one call, over a few calls in a row."""
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    if cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def summary(times: list[float], first: list[float]) -> Timing:
    """The medians of a row, and the quartiles of its ratios."""
    ratios = [mine / other for mine, other in zip(times, first, strict=True)]
    low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return Timing(median(times), middle, low, high)


@dataclass
class Report:
    """What a benchmark found: on the screen as Markdown, on disk as JSON.

    Attributes:
        name: of the benchmark; the file is `results/NAME-DEVICE.json`.
        question: what it answers, in a sentence.
        device: "cpu" or "cuda".
        cases: what was added.
    """

    name: str
    question: str
    device: str = "cpu"
    cases: list[dict[str, object]] = field(default_factory=list)

    def add(self, case: str, timings: Mapping[str, Timing], **facts: object) -> None:
        """Keep the rows of one case, with the facts that say what was timed, and print them."""
        self.cases.append({"case": case, **facts, "rows": {name: asdict(timing) for name, timing in timings.items()}})
        print("\n".join(lines(self.cases[-1])), flush=True)

    def markdown(self) -> str:
        """The whole report as Markdown tables."""
        parts = [f"# {self.question}", ", ".join(f"{key}: {value}" for key, value in machine(self.device).items())]
        return "\n\n".join(parts + ["\n".join(lines(case)) for case in self.cases]) + "\n"

    def write(self, folder: Path = RESULTS, *, keep: bool = False) -> Path:
        """Write the JSON file and give its path.

        Args:
            keep: leave the other cases that the file has from the same machine and versions: a long benchmark can be
                measured in parts.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}-{self.device.split(':')[0]}.json"
        content = {"question": self.question, "machine": machine(self.device), "cases": self.cases}
        if keep and path.exists():
            before = json.loads(path.read_text())
            if before["machine"] == content["machine"]:
                content["cases"] = renewed(before["cases"], self.cases)
        path.write_text(json.dumps(content, indent=1) + "\n")
        return path


def renewed(before: list[dict[str, object]], now: list[dict[str, object]]) -> list[dict[str, object]]:
    """The cases of before, those that were measured again replaced, and what is new behind them."""
    measured = {identity(case): case for case in now}
    kept = [measured.pop(identity(case), case) for case in before]
    return kept + list(measured.values())


def identity(case: Mapping[str, object]) -> tuple[object, ...]:
    """What was timed, without what was found."""
    return tuple(case.get(fact) for fact in ("case", "dtype", "direction"))


def lines(case: Mapping[str, object]) -> list[str]:
    """One case as the lines of a Markdown table."""
    facts = "".join(f", {key} {value}" for key, value in case.items() if key not in ("case", "rows"))
    out = [f"\n**{case['case']}**{facts}\n", "| row | median | over the first row | quartiles |", "|---|---:|---:|---|"]
    rows = case["rows"]
    assert isinstance(rows, dict)
    for name, row in rows.items():
        spread = f"{row['low']:.3f} … {row['high']:.3f}"
        out.append(f"| {name} | {row['seconds'] * 1e3:.3f} ms | {row['ratio']:.3f} | {spread} |")
    return out


def machine(device: str) -> dict[str, object]:
    """The machine and the versions, as a report names them."""
    found: dict[str, object] = {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """The processor's name and its widest instructions."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    named = (line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
    model = next(named, platform.processor())
    return f"{model} ({torch.backends.cpu.get_cpu_capability()}{', AMX' if ' amx_bf16' in text else ''})"


def arguments(question: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=15, help="how many times every row is timed")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument(
        "--keep", action="store_true", help="write into the file of results, beside its other cases of this machine"
    )
    return parser
