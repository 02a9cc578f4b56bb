"""What the results in `benchmarks/results` say: docs/benchmarks.md, and the table in the README.

    python benchmarks/table.py

Both are made from the JSON files alone; a test compares them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
README = HERE.parent / "README.md"
BEGIN, END = "<!-- benchmarks/table.py begins -->\n", "<!-- benchmarks/table.py ends -->\n"
# The peers and cases of the README's table, those where a peer is faster among them; docs/benchmarks.md has all.
SHORT = ("SDPA", "SDPA + mask", "FlexAttention")
CASES = (
    "no mask, N = 16",
    "causal, N = 2048",
    "window of 256, N = 8192",
    "16 packed documents, causal, N = 8192",
    "padded batch, 16 x 512, lengths 32 to 512",
    "decode, 32 heads on 8, 32768 keys",
    "softcap, N = 8192",
)

# Why a row is faster than the first one: a part of the case's name, the row, the reason.
OTHER_WORK = "it is timed without a bias or softcap, which it lacks or writes out"
REASONS = (
    ("N = 16", "SDPA", "the checks of a call and the choice of its path take about 4 µs"),
    ("N = 16", "formula", "products of 16 x 16 numbers cost less than the backward of the fused kernel"),
    ("softcap", "SDPA", f"{OTHER_WORK}; scores that tanh bends have to be written out"),
    ("ALiBi", "SDPA", f"{OTHER_WORK}; a number is added to each score here"),
    ("T5 bias", "SDPA", f"{OTHER_WORK}; a number is added to each score here"),
    (
        "replaced: weights",
        "nn.MultiheadAttention",
        "weights and values are computed in float32 here, whatever the dtype",
    ),
    ("learner", "linear + nn.MultiheadAttention", "with 5 tokens what surrounds the products counts most"),
)


def reason(case: str, row: str) -> str | None:
    """Why a row of a case may be faster than the first one; None where nothing is known."""
    return next((why for part, name, why in REASONS if part in case and name == row), None)


def clearly_faster(row: dict[str, float]) -> bool:
    """Whether a row was faster than the first one, by 3 % or more and in three quarters of the rounds."""
    return row["ratio"] <= 0.97 and row["high"] < 1


INTRODUCTION = """# Benchmarks

This page is written by `python benchmarks/table.py` from the files in `benchmarks/results`; a test compares the two.
`python benchmarks/NAME.py [--device cuda]` measures again, `headscope bench` where headscope is installed. Rows of one
case take turns in one process. A ratio is the median, over the rounds, of a row's time over that of the first row:
above 1 the first row is faster. Times of one machine mean nothing on another; ratios mean something within one run.
"""


def results() -> dict[str, dict[str, Any]]:
    """Every file of results, by its name without the ending."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((HERE / "results").glob("*.json"))}


def short(attend: dict[str, Any]) -> str:
    """The README's table: how many times as long as `hs.attend` each peer takes."""
    columns = [(dtype, way) for dtype in ("float32", "bfloat16") for way in ("forward", "forward + backward")]
    found: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for case in attend["cases"]:
        for peer, row in case["rows"].items():
            if peer in SHORT and case["case"] in CASES and "direction" in case:
                found.setdefault((case["case"], peer), {})[case["dtype"], case["direction"]] = row["ratio"]
    lines = [
        "| attention | peer | float32 | with backward | bfloat16 | with backward |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for (name, peer), ratios in found.items():
        cells = [f"{ratios[column]:.2f}" if column in ratios else "" for column in columns]
        lines.append(f"| {name} | {peer} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def about(machine: dict[str, Any]) -> str:
    """The machine and versions of a run, in a line."""
    return ", ".join(f"{value}" if name == "device" else f"{name} {value}" for name, value in machine.items())


def long(name: str, content: dict[str, Any]) -> str:
    """Everything that one benchmark found."""
    parts = [f"## {name}: {content['question']}", f"On {about(content['machine'])}."]
    for case in content["cases"]:
        facts = "".join(f", {key} {value}" for key, value in case.items() if key not in ("case", "rows"))
        parts.append(f"**{case['case']}**{facts}")
        if case["rows"]:
            first = next(iter(case["rows"]))
            lines = [f"| row | median, ms | over {first} | quartiles |", "|---|---:|---:|---|"]
            for who, row in case["rows"].items():
                spread = f"{row['low']:.2f} … {row['high']:.2f}"
                lines.append(f"| {who} | {row['seconds'] * 1e3:.3f} | {row['ratio']:.2f} | {spread} |")
            parts.append("\n".join(lines))
            for who, row in case["rows"].items():
                if clearly_faster(row) and (why := reason(case["case"], who)):
                    parts.append(f"*{who} is faster: {why}.*")
    return "\n\n".join(parts) + "\n"


def page(found: dict[str, dict[str, Any]]) -> str:
    """docs/benchmarks.md."""
    return "\n".join([INTRODUCTION, *(long(name, content) for name, content in found.items())])


def readme(text: str, attend: dict[str, Any]) -> str:
    """The README with its table made anew."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    machine = f"Measured on {about(attend['machine'])}.\n"
    return f"{before}{BEGIN}\n{short(attend)}\n{machine}\n{END}{after}"


def main() -> None:
    """Write both."""
    found = results()
    PAGE.write_text(page(found))
    README.write_text(readme(README.read_text(), found["attend-cpu"]))


if __name__ == "__main__":
    main()
